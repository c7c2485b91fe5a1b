//! A synthetic source: a small shop and its services, with requests that leave traces in several of them, quiet background
//! noise, bursts, and now and then something that breaks. The same seed gives the same lines.

use std::time::Duration;

use fastrand::Rng;

/// One line and the stream it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The service.
    pub(crate) app: &'static str,
    /// Its instance.
    pub(crate) pod: String,
    /// The text.
    pub(crate) text: String,
}

/// Things that happen at the same time, and how long it is until the next ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happening {
    /// The lines.
    pub(crate) lines: Vec<Line>,
    /// The pause after them.
    pub(crate) pause: Duration,
}

/// The shop.
pub(crate) struct Source {
    random: Rng,
    rate: f64,
    /// Lines of a burst still to come, and from whom.
    burst: u32,
    burst_kind: u32,
}

const PATHS: [&str; 8] = [
    "/",
    "/api/v1/products",
    "/api/v1/products/4711",
    "/api/v1/cart",
    "/api/v1/checkout",
    "/api/v1/orders",
    "/login",
    "/static/app.js",
];
const USERS: [&str; 6] = ["ada", "grace", "linus", "margaret", "dennis", "barbara"];
/// How many lines of a burst come in a tenth of a second.
const BURST_STEP: u32 = 4;

impl Source {
    /// A shop that writes about `rate` lines per second.
    pub(crate) fn new(seed: u64, rate: f64) -> Self {
        Self { random: Rng::with_seed(seed), rate, burst: 0, burst_kind: 0 }
    }

    /// What happens next.
    pub(crate) fn next(&mut self) -> Happening {
        if self.burst > 0 {
            let lines: Vec<Line> = (0..BURST_STEP.min(self.burst)).map(|_| self.burst_line()).collect();
            self.burst -= lines.len() as u32;
            return Happening { pause: self.pause(lines.len()) / 8, lines };
        }
        let lines = match self.random.u32(..1000) {
            0..560 => self.request(),
            560..680 => vec![self.worker()],
            680..790 => vec![self.database()],
            790..880 => vec![self.login()],
            880..950 => vec![self.cache()],
            950..985 => vec![self.trouble()],
            985..992 => vec![self.crash()],
            _ => {
                self.burst = self.random.u32(20..60);
                self.burst_kind = self.random.u32(..2);
                vec![self.burst_line()]
            }
        };
        Happening { pause: self.pause(lines.len()), lines }
    }

    /// Random, so that lines do not tick like a clock; on average what the rate asks for.
    fn pause(&mut self, lines: usize) -> Duration {
        let mean = lines as f64 / self.rate;
        let random = -(1.0 - self.random.f64()).ln();
        Duration::from_secs_f64(mean * random.min(4.0))
    }

    fn pod(&mut self, app: &'static str) -> String {
        let suffixes = ["x7k2p", "m4qzd", "9fwhj"];
        format!("{app}-{}", suffixes[self.random.usize(..suffixes.len())])
    }

    fn line(&mut self, app: &'static str, text: String) -> Line {
        Line { app, pod: self.pod(app), text }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.random.usize(..from.len())]
    }

    /// What the lines of one request have in common.
    fn request_id(&mut self) -> String {
        format!("{:08x}", self.random.u32(..))
    }

    /// A request, as the gateway (text), the API (JSON) and sometimes the shop's core (logfmt) see it.
    fn request(&mut self) -> Vec<Line> {
        let (rid, path) = (self.request_id(), self.pick(&PATHS));
        let ms = 3 + self.random.u32(..40) * self.random.u32(1..8);
        let status = match self.random.u32(..100) {
            0..88 => 200,
            88..93 => 304,
            93..97 => 404,
            97..99 => 429,
            _ => 503,
        };
        let method = if path.ends_with("checkout") || path.ends_with("login") { "POST" } else { "GET" };
        let client = format!("203.0.113.{}", self.random.u8(1..255));
        let size = self.random.u32(200..40_000);
        let mut lines = vec![
            self.line("gateway", format!("{client} \"{method} {path} HTTP/1.1\" {status} {size} {ms}ms rid={rid}")),
        ];
        if path.starts_with("/api") {
            let level = match status {
                503 => "error",
                429 => "warn",
                _ => "info",
            };
            let text = format!(
                "{{\"level\":\"{level}\",\"msg\":\"{}\",\"method\":\"{method}\",\"path\":\"{path}\",\"status\":{status},\"ms\":{ms},\"rid\":\"{rid}\"}}",
                match status {
                    404 => "nothing there",
                    400.. => "request failed",
                    _ => "request served",
                },
            );
            lines.push(self.line("api", text));
        }
        if path.ends_with("checkout") && status == 200 {
            let (user, total) = (self.pick(&USERS), self.random.u32(500..30_000));
            let text = format!(
                "level=info msg=\"order placed\" user={user} items={} total={}.{:02} rid={rid}",
                self.random.u32(1..9),
                total / 100,
                total % 100
            );
            lines.push(self.line("checkout", text));
        }
        lines
    }

    fn worker(&mut self) -> Line {
        let job = self.pick(&["send-mail", "resize-image", "sync-stock", "build-report"]);
        let (id, ms) = (self.random.u32(10_000..99_999), self.random.u32(20..4000));
        let text = match self.random.u32(..10) {
            0..6 => format!("INFO  [{job}] job {id} done in {ms} ms"),
            6..9 => format!("DEBUG [{job}] job {id} picked up, {} waiting", self.random.u32(..30)),
            _ => format!("WARN  [{job}] job {id} took {} ms, retrying once", ms + 4000),
        };
        self.line("worker", text)
    }

    fn database(&mut self) -> Line {
        let ms = f64::from(self.random.u32(1..900)) / 10.0;
        let table = self.pick(&["orders", "products", "carts", "users"]);
        let text = if self.random.u32(..12) == 0 {
            format!("WARNING:  slow statement: {:.1} ms  SELECT * FROM {table} ORDER BY created_at", ms * 40.0)
        } else {
            format!("LOG:  duration: {ms:.1} ms  statement: SELECT id FROM {table} WHERE id = $1")
        };
        self.line("postgres", text)
    }

    fn login(&mut self) -> Line {
        let user = self.pick(&USERS);
        let text = if self.random.u32(..5) == 0 {
            format!("level=warn msg=\"login failed\" user={user} reason=bad_password attempt={}", self.random.u32(1..5))
        } else {
            format!("level=info msg=\"login\" user={user} method={}", self.pick(&["password", "passkey", "sso"]))
        };
        self.line("auth", text)
    }

    fn cache(&mut self) -> Line {
        let (hit, keys) = (self.random.u32(70..100), self.random.u32(1000..90_000));
        let evicted = self.random.u32(..50);
        self.line("cache", format!("level=debug msg=stats hit_ratio=0.{hit} keys={keys} evicted={evicted}"))
    }

    /// An error, some with the stack that led to it.
    fn trouble(&mut self) -> Line {
        let rid = self.request_id();
        match self.random.u32(..3) {
            0 => {
                let order = self.random.u32(10_000..99_999);
                let text = format!(
                    "ERROR [send-mail] job {order} failed: ConnectionResetError: [Errno 104] Connection reset by peer\n\
                     Traceback (most recent call last):\n  File \"/app/worker/mail.py\", line 88, in deliver\n    \
                     smtp.send_message(message)\n  File \"/usr/lib/python3.13/smtplib.py\", line 986, in send_message\n\
                     ConnectionResetError: [Errno 104] Connection reset by peer"
                );
                self.line("worker", text)
            }
            1 => {
                let text = format!(
                    "{{\"level\":\"error\",\"msg\":\"payment provider timed out\",\"provider\":\"acme-pay\",\"timeout_ms\":3000,\"attempt\":{},\"rid\":\"{rid}\"}}",
                    self.random.u32(1..4)
                );
                self.line("api", text)
            }
            _ => {
                let user = self.pick(&USERS);
                let text = format!(
                    "level=error msg=\"stock reservation failed\" err=\"deadlock detected\" user={user} rid={rid}"
                );
                self.line("checkout", text)
            }
        }
    }

    fn crash(&mut self) -> Line {
        let text = format!(
            "level=fatal msg=\"out of memory, restarting\" heap_mb={} limit_mb=512 goroutine=\"main.(*Cart).merge\"",
            self.random.u32(505..530)
        );
        self.line("checkout", text)
    }

    fn burst_line(&mut self) -> Line {
        if self.burst_kind == 0 {
            let text = format!(
                "level=warn msg=\"login failed\" user=admin reason=bad_password ip=198.51.100.{} attempt={}",
                self.random.u8(1..20),
                self.random.u32(1..400)
            );
            self.line("auth", text)
        } else {
            let rid = self.request_id();
            let text = format!(
                "{{\"level\":\"warn\",\"msg\":\"rate limited\",\"path\":\"/api/v1/products\",\"status\":429,\"client\":\"192.0.2.{}\",\"rid\":\"{rid}\"}}",
                self.random.u8(1..9)
            );
            self.line("api", text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn hour(seed: u64) -> Vec<Happening> {
        let mut source = Source::new(seed, 20.0);
        (0..20_000).map(|_| source.next()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_lines_and_another_one_others() {
        assert_eq!(hour(1), hour(1));
        assert_ne!(hour(1), hour(2));
    }

    #[test]
    fn the_shop_is_lively() {
        let lines: Vec<Line> = hour(3).into_iter().flat_map(|h| h.lines).collect();
        let apps: BTreeSet<_> = lines.iter().map(|l| l.app).collect();
        assert!(apps.len() >= 7, "{apps:?}");
        let json: Vec<_> = lines.iter().filter(|l| l.text.starts_with('{')).collect();
        assert!(json.len() > 1000);
        for line in json {
            serde_json::from_str::<serde_json::Value>(&line.text).unwrap();
        }
        for part in
            ["level=info", "level=debug", "level=warn", "level=error", "level=fatal", "Traceback", "LOG:  duration"]
        {
            assert!(lines.iter().any(|l| l.text.contains(part)), "{part}");
        }
    }

    #[test]
    fn the_rate_is_about_what_was_asked_for() {
        let happenings = hour(4);
        let lines: usize = happenings.iter().map(|h| h.lines.len()).sum();
        let seconds: f64 = happenings.iter().map(|h| h.pause.as_secs_f64()).sum();
        let rate = lines as f64 / seconds;
        assert!((18.0..30.0).contains(&rate), "{rate}");
    }
}
