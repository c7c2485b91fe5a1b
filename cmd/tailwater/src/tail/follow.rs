//! One tail over as many connections as it takes.
//!
//! States: connecting → following → (broken → waiting → connecting)*, ended by the user, by a refusal that trying again does not
//! change, or by a break when reconnecting is not wanted.
//!
//! Invariants:
//! * the first connection asks for what the user asked for; a later one brings the token of the last frame that was printed, if the server
//!   gives tokens, and asks for everything since [`Resume::start`], with a limit that history does not reach, which counts where a
//!   token does not;
//! * a token is remembered when its frame has been printed; what is printed after it comes again with it, and is left out as far as it is
//!   remembered, and said;
//! * after word that the server is going down the tail goes on at once on one of the nodes that it names;
//! * what is printed is flushed before the tail waits;
//! * a server that pings and then falls silent is taken for dead after [`SILENCE`].

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use hyper::StatusCode;
use tailwater_model::Timestamp;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::keep::Keep;
use super::ledger::Ledger;
use super::resume::{Resume, Verdict};
use crate::client::answer::{Dropped, Told, decode_frame};
use crate::client::http::reason;
use crate::client::socket::{self, Socket};
use crate::client::{ClientError, Endpoint, hint};
use crate::error::Error;
use crate::signals::Stop;
use crate::terminal::counted;
use crate::terminal::escape;
use crate::terminal::render::Renderer;
use crate::terminal::style::Palette;

const PATH: &str = "/loki/api/v1/tail";
const READ_BUFFER_BYTES: usize = 128 << 10;
/// Limit of the history of a resumed connection: more lines than these in one break may be missing, and that is told.
const RESUME_LIMIT: u32 = 100_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A connection that lasted this long was a good one: the next pause is short again.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);
/// Loki pings every second.
const SILENCE: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);
/// Loki's reason when a tail has lasted as long as it may: come again at once.
const MAX_DURATION_REASON: &str = "reached tail max duration limit";
/// Reasons that trying again does not change.
const FINAL_REASONS: [&str; 6] = [
    "only log selector is supported",
    "max streams matchers",
    "exceeds the limit",
    "no longer available",
    "parse error",
    "could not parse",
];
/// What every refusal of a token says, and what it says of one of another query.
const TOKEN_REFUSED: &str = "the resume token is";
const TOKEN_OF_ANOTHER: &str = "the resume token is of another query";
/// Most nodes that a server may name.
const MAX_NODES: usize = 64;
const TOO_MANY_TAILS: &str = "max concurrent tail requests limit exceeded";

/// What to tail, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The log query.
    pub(crate) query: String,
    /// Where history begins.
    pub(crate) start: Timestamp,
    /// Lines of history, at least 1.
    pub(crate) limit: u32,
    /// Seconds to wait for late lines.
    pub(crate) delay_for: u8,
    /// Whether a broken connection is opened again.
    pub(crate) reconnect: bool,
    /// Where it is kept what has been printed.
    pub(crate) resume_file: Option<PathBuf>,
}

/// What the user should know and is no line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Notice {
    /// The first connection is open.
    Connected,
    /// The connection broke and will be tried until it is open again. Said once per break.
    Broken {
        /// Why.
        reason: String,
    },
    /// A broken connection is open again.
    Reconnected,
    /// The server has dropped lines.
    Dropped(Vec<Dropped>),
    /// The server did not bring what had been printed last: something may be missing before this time.
    Gap,
    /// The server does not know where the tail was any more, and it goes on by time; or it begins anew if nothing has been printed.
    Forgotten,
    /// The tail goes on with a token that is older than what has been printed.
    Behind {
        /// Lines that have been printed since.
        lines: u64,
        /// Those of them that may be printed again: they are not remembered.
        again: u64,
    },
    /// The file does not say so of the last lines that were printed: the next run prints them again.
    Unkept {
        /// How many.
        lines: u64,
    },
    /// The server says what has happened.
    Told(Told),
    /// A frame could not be understood.
    BadFrame(String),
}

impl Notice {
    /// Whether it tells of lines that are or may be lost.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Dropped(_) | Self::Gap | Self::Forgotten | Self::BadFrame(_))
    }

    /// One line for standard error.
    pub(crate) fn text(&self, palette: Palette) -> String {
        match self {
            Self::Connected => palette.dim("tailing; Ctrl-C ends").to_string(),
            Self::Broken { reason } => {
                palette.warning(format!("connection lost ({}); trying again", escape::message(reason))).to_string()
            }
            Self::Reconnected => palette.good("connected again; going on where it broke").to_string(),
            Self::Dropped(dropped) => {
                let example = dropped.first().map(|d| escape::message(&d.labels)).unwrap_or_default();
                let lines = counted(dropped.iter().map(|d| d.lines).sum(), "line");
                if let Some(reason) = dropped.iter().find_map(|d| d.reason.as_deref()) {
                    let reason = escape::message(reason);
                    return palette
                        .failure(format!("the server could not give {lines} or more ({reason}): they are missing here"))
                        .to_string();
                }
                palette
                    .failure(format!(
                        "the server dropped {lines} because this tail was too slow, the first of {example}"
                    ))
                    .to_string()
            }
            Self::Gap => palette
                .failure("the server no longer has the last lines that were printed: lines may be missing here")
                .to_string(),
            Self::Forgotten => palette
                .warning("the server does not know where this tail was; it goes on by the time of the last lines")
                .to_string(),
            Self::Behind { lines, again: 0 } => palette
                .dim(format!(
                    "the server has said where this tail was {} ago; they are left out",
                    counted(*lines, "line")
                ))
                .to_string(),
            Self::Behind { lines, again } => palette
                .warning(format!(
                    "the server has said where this tail was {} ago; {} of them may be printed twice",
                    counted(*lines, "line"),
                    counted(*again, "line")
                ))
                .to_string(),
            Self::Unkept { lines } => palette
                .warning(format!(
                    "--resume-file lacks the last {}: the next run prints them again",
                    counted(*lines, "line")
                ))
                .to_string(),
            Self::Told(Told::NoToken { reason }) => palette
                .warning(format!("the server does not say where this tail is ({})", escape::message(reason)))
                .to_string(),
            Self::Told(Told::Away { what, reason }) => {
                let (what, reason) = (escape::message(what), escape::message(reason));
                palette.warning(format!("{what} is away ({reason}); its lines come later")).to_string()
            }
            Self::Told(Told::Back { what }) => palette.good(format!("{} is back", escape::message(what))).to_string(),
            Self::Told(Told::Draining { .. }) => {
                palette.dim("the server is going down; going on elsewhere").to_string()
            }
            Self::BadFrame(e) => {
                palette.failure(format!("a frame could not be read, its lines are missing: {e}")).to_string()
            }
        }
    }
}

/// How a connection ended.
enum End {
    /// The user asked.
    Stopped,
    /// The server is going down and has named others.
    Moving,
    /// The server or the network, and why.
    Broken(String),
}

/// A tail.
pub(crate) struct Follow {
    endpoint: Arc<Endpoint>,
    plan: Plan,
    stop: Stop,
    renderer: Renderer,
    resume: Resume,
    ledger: Ledger,
    first_connected: Option<Instant>,
    /// Of the last frame that was printed.
    token: Option<String>,
    keep: Keep,
    /// The next frame is the first after a token was brought: whether the server has taken it is not known.
    brought: bool,
    /// Where to go on first.
    elsewhere: VecDeque<Arc<Endpoint>>,
}

impl Follow {
    /// A tail that is not connected yet.
    pub(crate) fn new(endpoint: Arc<Endpoint>, plan: Plan, stop: Stop, renderer: Renderer) -> Self {
        let (resume, ledger) = (Resume::default(), Ledger::new());
        let (token, keep, elsewhere) = (None, Keep::default(), VecDeque::new());
        let first_connected = None;
        Self { endpoint, plan, stop, renderer, resume, ledger, first_connected, token, keep, brought: false, elsewhere }
    }

    /// The account so far.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether a connection has ever been open.
    pub(crate) fn ever_connected(&self) -> bool {
        self.first_connected.is_some()
    }

    /// Prints lines until the user ends it.
    ///
    /// # Errors
    /// A refusal, a first connection that fails, a break when reconnecting is not wanted, an output that cannot be written.
    pub(crate) async fn run(&mut self, out: &mut impl Write, notice: &mut dyn FnMut(Notice)) -> Result<(), Error> {
        (self.keep, self.token) = Keep::open(self.plan.resume_file.clone())?;
        if self.token.is_some() {
            self.resume.token();
        }
        let ended = self.follow(out, notice).await;
        // What is not flushed is not printed.
        out.flush()?;
        self.keep.write(self.token.as_deref())?;
        let lines = if self.token.is_some() { self.resume.behind().0 } else { self.ledger.lines };
        if self.plan.resume_file.is_some() && lines > 0 {
            notice(Notice::Unkept { lines });
        }
        ended
    }

    async fn follow(&mut self, out: &mut impl Write, notice: &mut dyn FnMut(Notice)) -> Result<(), Error> {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            let began = Instant::now();
            let why = match self.connect().await {
                Ok(None) => return Ok(()),
                Ok(Some(socket)) => {
                    notice(if self.ever_connected() { Notice::Reconnected } else { Notice::Connected });
                    if self.first_connected.replace(self.first_connected.unwrap_or(began)).is_some() {
                        self.ledger.reconnects += 1;
                        let (lines, again) = self.resume.behind();
                        if !self.brought {
                            self.resume.reconnected();
                        } else if lines > 0 {
                            self.resume.brought();
                            notice(Notice::Behind { lines, again });
                        }
                    }
                    told = false;
                    let lines_before = self.ledger.lines;
                    let ended = self.read(socket, out, notice).await?;
                    out.flush()?;
                    if began.elapsed() >= GOOD_CONNECTION || self.ledger.lines > lines_before {
                        pause = FIRST_PAUSE;
                    }
                    match ended {
                        End::Stopped => return Ok(()),
                        End::Moving if self.plan.reconnect => {
                            // Servers that all go down must not send it round without end.
                            tokio::select! {
                                () = self.stop.wait() => return Ok(()),
                                () = sleep(pause) => {}
                            }
                            pause = (pause * 2).min(LONGEST_PAUSE);
                            continue;
                        }
                        End::Moving => "the server is going down".to_owned(),
                        End::Broken(why) => why,
                    }
                }
                Err(ClientError::Refused { text, .. }) if self.brought && text.contains(TOKEN_REFUSED) => {
                    if text.contains(TOKEN_OF_ANOTHER) {
                        return Err(Error::Failed(self.of_another()));
                    }
                    self.token = None;
                    notice(Notice::Forgotten);
                    continue;
                }
                // Where the server has sent us nobody may be there.
                Err(_) if !self.elsewhere.is_empty() => continue,
                Err(e) if self.ever_connected() && e.is_temporary() => e.to_string(),
                Err(e) => return Err(e.into()),
            };
            if FINAL_REASONS.iter().any(|r| why.contains(r))
                || (why.contains(TOO_MANY_TAILS) && self.ledger.reconnects == 0)
            {
                let hint = hint(StatusCode::BAD_REQUEST, &why);
                return Err(Error::Failed(format!("the server ended the tail: {}{hint}", escape::message(&why))));
            }
            if !self.plan.reconnect {
                return Err(Error::Failed(format!("the tail ended: {}", escape::message(&why))));
            }
            if why == MAX_DURATION_REASON {
                continue;
            }
            if !std::mem::replace(&mut told, true) {
                notice(Notice::Broken { reason: why });
            }
            tokio::select! {
                () = self.stop.wait() => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A connection, or nothing if the user ended the wait for it.
    async fn connect(&mut self) -> Result<Option<Socket>, ClientError> {
        let (start, limit) = match (self.resume.start(), self.first_connected) {
            (Some(start), _) => (start, RESUME_LIMIT),
            // Nothing has come: what has arrived since the first connection is not history that nobody asked for.
            (None, Some(first)) if first.elapsed() > GOOD_CONNECTION => (self.plan.start, RESUME_LIMIT),
            (None, _) => (self.plan.start, self.plan.limit),
        };
        let endpoint = self.elsewhere.pop_front().unwrap_or_else(|| Arc::clone(&self.endpoint));
        self.brought = self.token.is_some();
        let target = endpoint.target(
            PATH,
            &[
                ("query", &self.plan.query),
                ("start", &start.nanos().to_string()),
                ("limit", &limit.to_string()),
                ("delay_for", &self.plan.delay_for.to_string()),
                // Others do not know these, and do not mind.
                ("resume", self.token.as_deref().unwrap_or("true")),
                ("notices", "true"),
            ],
        );
        tokio::select! {
            () = self.stop.wait() => Ok(None),
            opened = socket::open(&endpoint, &target, READ_BUFFER_BYTES) => opened.map(Some),
        }
    }

    async fn read(
        &mut self,
        mut socket: Socket,
        out: &mut impl Write,
        notice: &mut dyn FnMut(Notice),
    ) -> Result<End, Error> {
        let mut pinged = false;
        loop {
            if self.stop.asked() {
                close(&mut socket).await;
                return Ok(End::Stopped);
            }
            // While more is ready, go on without a flush.
            let message = match socket.next().now_or_never() {
                Some(message) => message,
                None => {
                    out.flush()?;
                    let due = self.keep.due();
                    if due.is_some_and(|due| due <= Instant::now()) {
                        self.keep.write(self.token.as_deref())?;
                        continue;
                    }
                    let patience = if pinged { SILENCE } else { Duration::MAX };
                    tokio::select! {
                        () = self.stop.wait() => continue,
                        () = async { match due { Some(due) => sleep_until(due.into()).await, None => std::future::pending().await } } => continue,
                        message = timeout(patience, socket.next()) => match message {
                            Ok(message) => message,
                            Err(_) => return Ok(End::Broken(format!("nothing heard for {} s", SILENCE.as_secs()))),
                        },
                    }
                }
            };
            match message {
                Some(Ok(Message::Text(text))) => {
                    if self.print(text.as_str(), out, notice)? {
                        close(&mut socket).await;
                        return Ok(End::Moving);
                    }
                }
                Some(Ok(Message::Binary(bytes))) => {
                    self.print(&String::from_utf8_lossy(&bytes), out, notice)?;
                }
                Some(Ok(Message::Ping(_))) => pinged = true,
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map(|f| f.reason.to_string()).filter(|r| !r.is_empty());
                    return Ok(End::Broken(why.unwrap_or_else(|| "closed by the server".to_owned())));
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Ok(End::Broken(reason(&e))),
                None => return Ok(End::Broken("closed by the server".to_owned())),
            }
        }
    }

    /// Prints a frame. Answers whether the tail should go on elsewhere.
    fn print(&mut self, text: &str, out: &mut impl Write, notice: &mut dyn FnMut(Notice)) -> Result<bool, Error> {
        let frame = match decode_frame(text) {
            Ok(frame) => frame,
            Err(e) => {
                notice(Notice::BadFrame(e));
                return Ok(false);
            }
        };
        if std::mem::take(&mut self.brought) && !frame.resumed {
            // A server that knows no tokens: the lines come again from some time on.
            self.token = None;
            self.resume.reconnected();
        }
        self.renderer.fit(&frame.entries);
        for entry in &frame.entries {
            match self.resume.see(entry) {
                Verdict::Skip => {
                    self.ledger.repeats += 1;
                    continue;
                }
                Verdict::PrintAfterGap => {
                    self.ledger.gaps += 1;
                    out.flush()?;
                    notice(Notice::Gap);
                }
                Verdict::Print => {}
            }
            self.renderer.write(out, entry)?;
            self.ledger.lines += 1;
            self.ledger.bytes += entry.line.len() as u64;
        }
        if !frame.dropped.is_empty() {
            self.ledger.dropped += frame.dropped.iter().map(|dropped| dropped.lines).sum::<u64>();
            out.flush()?;
            notice(Notice::Dropped(frame.dropped));
        }
        if frame.resume.is_some() {
            self.token = frame.resume;
            self.resume.token();
            self.keep.printed();
        }
        if self.keep.due().is_some_and(|due| due <= Instant::now()) {
            out.flush()?;
            self.keep.write(self.token.as_deref())?;
        }
        let mut moving = false;
        for told in frame.told {
            if let Told::Draining { nodes } = &told {
                let nodes = nodes.iter().take(MAX_NODES).filter_map(|node| self.endpoint.elsewhere(node));
                self.elsewhere = nodes.map(Arc::new).collect();
                // Many tails are told at once.
                let first = fastrand::usize(..self.elsewhere.len().max(1));
                self.elsewhere.rotate_left(first.min(self.elsewhere.len()));
                moving = self.token.is_some() && !self.elsewhere.is_empty();
            }
            out.flush()?;
            notice(Notice::Told(told));
        }
        Ok(moving)
    }

    /// What to say of a token that was kept for another query.
    fn of_another(&self) -> String {
        match &self.plan.resume_file {
            Some(file) => format!("--resume-file {} is of a tail of another query; name another file", file.display()),
            None => "the server says that this tail is of another query".to_owned(),
        }
    }
}

/// Says goodbye, without waiting long for the answer.
async fn close(socket: &mut Socket) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _whatever_comes_back = timeout(CLOSE_TIMEOUT, async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::render::Clock;
    use crate::terminal::{Output, OutputArgs, Screen};
    use crate::testing::{FakeLoki, TailScript, frame};

    /// Everything printed, everything said. The tail is stopped once `lines` lines are printed.
    async fn tail(loki: &FakeLoki, lines: u64, reconnect: bool) -> (String, Vec<Notice>, Ledger, Result<(), Error>) {
        tail_keeping(loki, lines, reconnect, None).await
    }

    async fn tail_keeping(
        loki: &FakeLoki,
        lines: u64,
        reconnect: bool,
        resume_file: Option<PathBuf>,
    ) -> (String, Vec<Notice>, Ledger, Result<(), Error>) {
        let (ask, stop) = Stop::manual();
        let plain = Palette::new(false);
        let screen = Screen { out_is_terminal: false, out: plain, err: plain, err_is_terminal: false };
        let renderer = Renderer::new(&OutputArgs { output: Output::Raw, ..OutputArgs::default() }, screen, Clock::Time);
        let plan =
            Plan { query: "{app=\"a\"}".into(), start: Timestamp(1), limit: 5, delay_for: 2, reconnect, resume_file };
        let mut follow = Follow::new(loki.endpoint(), plan, stop, renderer);
        let mut out = Counting { text: Vec::new(), lines, ask };
        let mut said = Vec::new();
        let ended = follow.run(&mut out, &mut |n| said.push(n)).await;
        (String::from_utf8(out.text).unwrap(), said, follow.ledger().clone(), ended)
    }

    /// Asks the tail to stop when it has seen enough lines.
    struct Counting {
        text: Vec<u8>,
        lines: u64,
        ask: tokio::sync::watch::Sender<bool>,
    }

    impl Write for Counting {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.text.extend_from_slice(bytes);
            if self.text.iter().filter(|b| **b == b'\n').count() as u64 >= self.lines {
                self.ask.send_replace(true);
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_cut_connection_is_resumed_without_loss_or_repeats() {
        let s = 1_000_000_000;
        let loki = FakeLoki::start(
            vec![
                TailScript::ThenCut(vec![frame(&[(10 * s, "a"), (11 * s, "b"), (11 * s, "b2")])]),
                TailScript::Refuse(503, "starting"),
                TailScript::ThenCut(vec![frame(&[(10 * s, "a"), (11 * s, "b"), (11 * s, "b2"), (12 * s, "c")])]),
                TailScript::ThenStay(vec![frame(&[(11 * s, "b"), (11 * s, "b2"), (12 * s, "c"), (13 * s, "d")])]),
            ],
            vec![],
        )
        .await;
        let (text, said, ledger, ended) = tail(&loki, 5, true).await;
        ended.unwrap();
        assert_eq!(text, "a\nb\nb2\nc\nd\n");
        assert_eq!((ledger.lines, ledger.reconnects, ledger.repeats, ledger.gaps, ledger.dropped), (5, 2, 6, 0, 0));
        assert_eq!(said.iter().filter(|n| matches!(n, Notice::Broken { .. })).count(), 2, "{said:?}");
        let asked = loki.asked();
        assert_eq!(
            asked[0],
            "/loki/api/v1/tail?query=%7Bapp%3D%22a%22%7D&start=1&limit=5&delay_for=2&resume=true&notices=true"
        );
        assert!(asked[1].contains(&format!("start={}&limit={RESUME_LIMIT}&", 6 * s)), "{}", asked[1]);
        assert!(asked[3].contains(&format!("start={}&", 7 * s)), "{}", asked[3]);
    }

    /// A frame with more in it.
    fn frame_with(entries: &[(i64, &str)], more: &str) -> String {
        frame(entries).replacen('{', &format!("{{{more},"), 1)
    }

    #[tokio::test]
    async fn a_token_is_brought_back_and_a_server_that_does_not_know_it_any_more_is_asked_by_time() {
        let s = 1_000_000_000;
        let loki = FakeLoki::start(
            vec![
                TailScript::ThenCut(vec![
                    frame_with(&[(10 * s, "a")], r#""resume":"t-1""#),
                    frame_with(&[(10 * s, "a")], r#""resume":"t-2""#),
                ]),
                TailScript::ThenCut(vec![frame_with(
                    &[(10 * s, "a"), (9 * s, "b")],
                    r#""resumed":true,"resume":"t-3""#,
                )]),
                TailScript::Refuse(400, "the resume token is not valid"),
                TailScript::ThenStay(vec![frame(&[
                    (10 * s, "a"),
                    (10 * s, "a"),
                    (10 * s, "a"),
                    (9 * s, "b"),
                    (11 * s, "c"),
                ])]),
            ],
            vec![],
        )
        .await;
        let (text, said, ledger, ended) = tail(&loki, 5, true).await;
        ended.unwrap();
        assert_eq!(text, "a\na\na\nb\nc\n", "with a token nothing is taken for a repeat");
        assert_eq!((ledger.reconnects, ledger.repeats, ledger.gaps), (2, 4, 0));
        assert!(said.contains(&Notice::Forgotten), "{said:?}");
        let resume = |asked: &String| asked.split("resume=").nth(1).unwrap().split('&').next().unwrap().to_owned();
        assert_eq!(loki.asked().iter().map(resume).collect::<Vec<_>>(), ["true", "t-2", "t-3", "true"]);
    }

    #[tokio::test]
    async fn an_older_token_brings_lines_again_which_are_left_out_and_that_is_said() {
        let s = 1_000_000_000;
        let no_token = r#""notices":[{"type":"no_token","reason":"many"}]"#;
        let loki = FakeLoki::start(
            vec![
                TailScript::ThenCut(vec![
                    frame_with(&[(10 * s, "a")], r#""resume":"t-1""#),
                    frame_with(&[], no_token),
                    frame(&[(20 * s, "b"), (3 * s, "late"), (20 * s, "a")]),
                ]),
                TailScript::ThenStay(vec![
                    frame_with(&[(3 * s, "late"), (20 * s, "a")], r#""resumed":true"#),
                    frame(&[(20 * s, "b"), (20 * s, "a"), (21 * s, "c")]),
                ]),
            ],
            vec![],
        )
        .await;
        let folder = tempfile::tempdir().unwrap();
        let (text, said, ledger, ended) = tail_keeping(&loki, 6, true, Some(folder.path().join("pos"))).await;
        ended.unwrap();
        assert_eq!(text, "a\nb\nlate\na\na\nc\n", "the second of the equal lines is a new one");
        assert_eq!((ledger.reconnects, ledger.repeats, ledger.gaps), (1, 3, 0));
        assert!(said.contains(&Notice::Told(Told::NoToken { reason: "many".into() })), "{said:?}");
        assert!(said.contains(&Notice::Behind { lines: 3, again: 0 }), "{said:?}");
        assert_eq!(said.last(), Some(&Notice::Unkept { lines: 5 }));
        assert!(loki.asked()[1].contains("resume=t-1&"), "{:?}", loki.asked());
        let texts: Vec<_> = said.iter().map(|notice| notice.text(Palette::new(false))).collect();
        assert!(texts.iter().any(|text| text.contains("3 lines ago")), "{texts:?}");
    }

    #[tokio::test]
    async fn a_server_that_knows_no_tokens_is_noticed_by_its_first_frame() {
        let s = 1_000_000_000;
        let loki = FakeLoki::start(
            vec![
                TailScript::ThenCut(vec![frame_with(&[(10 * s, "a")], r#""resume":"t-1""#)]),
                TailScript::ThenStay(vec![frame(&[(10 * s, "a"), (11 * s, "b")])]),
            ],
            vec![],
        )
        .await;
        let (text, _, ledger, ended) = tail(&loki, 2, true).await;
        ended.unwrap();
        assert_eq!((text.as_str(), ledger.repeats), ("a\nb\n", 1));
    }

    #[tokio::test]
    async fn a_server_that_goes_down_names_others() {
        let there = FakeLoki::start(
            vec![TailScript::ThenStay(vec![frame_with(&[(2, "b")], r#""resumed":true,"resume":"t-2""#)])],
            vec![],
        )
        .await;
        let nodes = format!("http://127.0.0.1:1\",\"http://{}", there.endpoint().address());
        let draining = format!(r#""notices":[{{"type":"draining","nodes":["{nodes}"]}}],"resume":"t-1""#);
        let here = FakeLoki::start(vec![TailScript::ThenStay(vec![frame_with(&[(1, "a")], &draining)])], vec![]).await;
        let (text, said, ledger, ended) = tail(&here, 2, true).await;
        ended.unwrap();
        assert_eq!((text.as_str(), ledger.reconnects), ("a\nb\n", 1));
        assert!(said.iter().any(|n| matches!(n, Notice::Told(Told::Draining { .. }))), "{said:?}");
        assert!(!said.iter().any(|n| matches!(n, Notice::Broken { .. })), "{said:?}");
        assert!(there.asked()[0].contains("resume=t-1&"), "{:?}", there.asked());
    }

    #[tokio::test]
    async fn a_resume_file_takes_a_tail_from_one_run_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let file = || Some(folder.path().join("pos"));
        let first = frame_with(&[(1, "a")], r#""resume":"t-1""#);
        let second = frame_with(&[(2, "b")], r#""resumed":true,"resume":"t-2""#);
        let scripts = vec![
            TailScript::ThenStay(vec![first]),
            TailScript::ThenStay(vec![second]),
            TailScript::Refuse(400, TOKEN_OF_ANOTHER),
        ];
        let loki = FakeLoki::start(scripts, vec![]).await;
        for (text, token) in [("a\n", "t-1"), ("b\n", "t-2")] {
            let (printed, _, _, ended) = tail_keeping(&loki, 1, true, file()).await;
            ended.unwrap();
            assert_eq!(printed, text);
            assert_eq!(std::fs::read_to_string(file().unwrap()).unwrap().trim(), token);
        }
        let asked = loki.asked();
        assert!(asked[0].contains("resume=true&") && asked[1].contains("resume=t-1&"), "{asked:?}");
        let (_, _, _, ended) = tail_keeping(&loki, 1, true, file()).await;
        assert!(ended.unwrap_err().to_string().contains("of another query"));
        assert_eq!(std::fs::read_to_string(file().unwrap()).unwrap().trim(), "t-2", "and it is left alone");
    }

    #[tokio::test]
    async fn the_end_of_the_longest_duration_is_resumed_at_once_and_what_was_dropped_is_told() {
        let dropped = r#"{"streams":[],"dropped_entries":[{"timestamp":"7","labels":{"app":"x"}},{"timestamp":"8","labels":{}}]}"#;
        let loki = FakeLoki::start(
            vec![
                TailScript::ThenClose(vec![frame(&[(5, "a")]), dropped.to_owned()], MAX_DURATION_REASON),
                TailScript::ThenStay(vec![frame(&[(5, "a"), (6, "b")])]),
            ],
            vec![],
        )
        .await;
        let (text, said, ledger, ended) = tail(&loki, 2, true).await;
        ended.unwrap();
        assert_eq!(text, "a\nb\n");
        assert_eq!((ledger.dropped, ledger.reconnects, ledger.repeats), (2, 1, 1));
        assert!(said.iter().any(|n| matches!(n, Notice::Dropped(d) if d.len() == 2) && n.is_loss()), "{said:?}");
        assert!(!said.iter().any(|n| matches!(n, Notice::Broken { .. })), "{said:?}");
    }

    #[tokio::test]
    async fn a_server_that_lost_its_memory_is_told_as_a_gap() {
        let loki = FakeLoki::start(
            vec![TailScript::ThenCut(vec![frame(&[(5, "a")])]), TailScript::ThenStay(vec![frame(&[(9, "z")])])],
            vec![],
        )
        .await;
        let (text, said, ledger, ended) = tail(&loki, 2, true).await;
        ended.unwrap();
        assert_eq!((text.as_str(), ledger.gaps), ("a\nz\n", 1));
        assert!(said.contains(&Notice::Gap));
    }

    #[tokio::test]
    async fn refusals_are_shown_with_the_servers_text_and_not_tried_again() {
        let loki = FakeLoki::start(vec![TailScript::Refuse(400, "parse error at line 1, col 2: oh")], vec![]).await;
        let (_, _, _, ended) = tail(&loki, 1, true).await;
        assert_eq!(
            ended.unwrap_err().to_string(),
            "the server answered 400 Bad Request: parse error at line 1, col 2: oh"
        );
        assert_eq!(loki.asked().len(), 1);

        let limit =
            "rpc error: code = Code(400) desc = max concurrent tail requests limit exceeded, count > limit (11 > 10)";
        for reason in ["only log selector is supported", limit] {
            let loki = FakeLoki::start(vec![TailScript::ThenClose(vec![], reason)], vec![]).await;
            let (_, _, _, ended) = tail(&loki, 1, true).await;
            let text = ended.unwrap_err().to_string();
            assert!(text.contains(reason), "{text}");
            assert_eq!(text.contains("limits_config.max_concurrent_tail_requests"), reason == limit, "{text}");
        }
    }

    #[tokio::test]
    async fn without_reconnecting_the_end_of_the_connection_is_a_failure() {
        let loki = FakeLoki::start(
            vec![TailScript::ThenClose(vec![frame(&[(5, "a")])], "all ingesters closed the connection")],
            vec![],
        )
        .await;
        let (text, _, _, ended) = tail(&loki, 9, false).await;
        assert_eq!(text, "a\n");
        assert!(ended.unwrap_err().to_string().contains("all ingesters closed the connection"));
    }

    #[tokio::test]
    async fn nobody_there_is_said_at_once() {
        let loki = FakeLoki::start(vec![], vec![]).await;
        let endpoint = loki.endpoint();
        drop(loki);
        let error = socket::open(&endpoint, "/", 1024).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Connect { .. }) && error.to_string().contains("tailwater serve"),
            "{error}"
        );
    }
}
