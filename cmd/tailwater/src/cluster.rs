//! `tailwater cluster`: who is in a cluster, as one of its members sees it.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;

use crate::client::{ClientError, Http, ServerArgs};
use crate::error::Error;
use crate::terminal::style::Palette;
use crate::terminal::{Screen, counted, escape, tell};

const EXAMPLES: &str = "\
Examples:
  tailwater cluster                                   the members, as 127.0.0.1:3100 sees them
  tailwater cluster --addr http://10.0.0.7:3100       as another one sees them
  tailwater cluster --json | jq '.members[].name'     for programs
  tailwater cluster | awk '$2 != \"active\"'            in a pipe: columns separated by tabs, no head

Columns: name, state, role, zone, version, HTTP, gRPC, gossip, logs.";

const PATH: &str = "/ring";

/// Show who is in the cluster
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ClusterArgs {
    /// Write the server's answer as it is
    #[arg(long)]
    json: bool,
    /// No colours (also with NO_COLOR set, and when standard output is not a terminal)
    #[arg(long)]
    no_color: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What the server says. What it does not say is empty: it may be of another version.
#[derive(Debug, Deserialize)]
struct Answer {
    cluster: Option<About>,
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct About {
    name: String,
    me: String,
    replication_factor: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Member {
    name: String,
    role: String,
    state: String,
    zone: Option<String>,
    version: String,
    http: String,
    grpc: String,
    gossip: String,
    logs: Vec<String>,
    alive: bool,
}

const HEAD: [&str; 9] = ["name", "state", "role", "zone", "version", "http", "grpc", "gossip", "logs"];

/// Where the state stands.
const STATE: usize = 1;

/// Runs the command.
///
/// # Errors
/// A server that cannot be reached or says something else, an output that cannot be written.
pub(crate) async fn run(args: ClusterArgs) -> Result<(), Error> {
    let mut http = Http::new(Arc::new(args.server.endpoint()?));
    let body = http.get(PATH, &[("format", "json")]).await?;
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        out.write_all(&body)?;
        writeln!(out)?;
        out.flush()?;
        return Ok(());
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| ClientError::Answer {
        address: http.endpoint().address(),
        reason: format!("it is not about members: {error}"),
    })?;
    let screen = Screen::of_process(args.no_color);
    let Some(about) = &answer.cluster else {
        tell("this server is alone: it is in no cluster");
        return Ok(());
    };
    if screen.out_is_terminal {
        pretty(&mut out, screen.out, about, &answer.members)?;
    } else {
        plain(&mut out, &answer.members)?;
    }
    out.flush()?;
    Ok(())
}

impl Member {
    fn cells(&self) -> [String; 9] {
        let state = if self.alive { self.state.clone() } else { "away".to_owned() };
        let zone = self.zone.clone().unwrap_or_default();
        [
            &self.name,
            &state,
            &self.role,
            &zone,
            &self.version,
            &self.http,
            &self.grpc,
            &self.gossip,
            &self.logs.join(","),
        ]
        .map(|text| escape::message(text).replace(['\t', '\n'], " "))
    }
}

fn plain(out: &mut impl Write, members: &[Member]) -> io::Result<()> {
    members.iter().try_for_each(|member| writeln!(out, "{}", member.cells().join("\t")))
}

/// Aligned; the asked member is marked, and states have colours. What no member has is left out.
fn pretty(out: &mut impl Write, palette: Palette, about: &About, members: &[Member]) -> io::Result<()> {
    let copies = match about.replication_factor {
        0 | 1 => "one copy of each log".to_owned(),
        n => format!("{n} copies of each log"),
    };
    let name = escape::message(&about.name);
    writeln!(out, "{}  {}, {copies}\n", palette.bold(name), counted(members.len() as u64, "member"))?;
    let rows: Vec<_> = members.iter().map(Member::cells).collect();
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().filter(|w| *w > 0);
    let columns: Vec<(usize, usize)> =
        (0..HEAD.len()).filter_map(|i| Some((i, width(i)?.max(HEAD[i].chars().count())))).collect();
    let mut head = String::from("  ");
    for (i, width) in &columns {
        head += &format!("{:<width$}  ", HEAD[*i]);
    }
    writeln!(out, "{}", palette.dim(head.trim_end()))?;
    for (member, row) in members.iter().zip(&rows) {
        write!(out, "{} ", if member.name == about.me { "*" } else { " " })?;
        for (at, (i, width)) in columns.iter().enumerate() {
            let last = at + 1 == columns.len();
            let text = if last { row[*i].clone() } else { format!("{:<width$}  ", row[*i]) };
            match row[*i].as_str() {
                _ if *i != STATE => write!(out, "{text}")?,
                "active" => write!(out, "{}", palette.good(text))?,
                "away" => write!(out, "{}", palette.failure(text))?,
                _ => write!(out, "{}", palette.warning(text))?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        serde_json::from_str(
            r#"{"cluster":{"name":"prod","me":"b","replication_factor":2},"more":1,"members":[
            {"name":"a","role":"all","state":"active","zone":null,"version":"1","http":"http://1.2.3.4:1","grpc":"1.2.3.4:2",
             "gossip":"1.2.3.4:3","logs":["01A","01B"],"alive":true},
            {"name":"b\u001b[31m","role":"querier","state":"active","version":"1","logs":[],"alive":false}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_pipe_gets_tabs_and_nothing_dangerous() {
        let mut out = Vec::new();
        plain(&mut out, &answer().members).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "a\tactive\tall\t\t1\thttp://1.2.3.4:1\t1.2.3.4:2\t1.2.3.4:3\t01A,01B");
        assert!(lines[1].contains("\taway\tquerier\t") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_terminal_gets_a_table_without_empty_columns() {
        let mut out = Vec::new();
        let Answer { cluster, members } = answer();
        pretty(&mut out, Palette::new(false), &cluster.unwrap(), &members[..1]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "prod  1 member, 2 copies of each log\n\n  name  state   role  version  http              grpc       gossip     logs\n  \
             a     active  all   1        http://1.2.3.4:1  1.2.3.4:2  1.2.3.4:3  01A,01B\n"
        );
    }
}
