//! What a process has used, from `/proc` (Linux).

use std::fs;
use std::time::Duration;

/// Ticks per second of `/proc/PID/stat`: the kernel's USER_HZ, 100 on every architecture that Rust's tier 1 knows.
const TICKS_PER_SECOND: u64 = 100;

/// A look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time in user and kernel mode, all threads, also ended ones. In steps of 10 ms.
    pub(crate) cpu: Duration,
    /// Memory in use, in bytes.
    pub(crate) resident: u64,
    /// The most memory that has been in use, in bytes.
    pub(crate) peak: u64,
}

/// What the process `pid` has used so far; `self` is this one.
///
/// # Errors
/// What is wrong, and that `--pid` must name a running process on this machine.
pub(crate) fn usage(pid: &str) -> Result<Usage, String> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path)
            .map_err(|e| format!("{path}: {e}; --pid must name a process that runs on this (Linux) machine"))
    };
    let (stat, status) = (read("stat")?, read("status")?);
    let cpu = cpu_of(&stat).ok_or_else(|| format!("/proc/{pid}/stat cannot be understood"))?;
    let (resident, peak) = (kilobytes(&status, "VmRSS:"), kilobytes(&status, "VmHWM:"));
    Ok(Usage { cpu, resident: resident.unwrap_or(0), peak: peak.unwrap_or(0) })
}

/// What several processes have used together; none of none.
///
/// # Errors
/// As [`usage`].
pub(crate) fn usage_of(pids: &[String]) -> Result<Option<Usage>, String> {
    let mut sum: Option<Usage> = None;
    for pid in pids {
        let one = usage(pid)?;
        sum = Some(sum.map_or(one, |sum| Usage {
            cpu: sum.cpu + one.cpu,
            resident: sum.resident + one.resident,
            peak: sum.peak + one.peak,
        }));
    }
    Ok(sum)
}

fn cpu_of(stat: &str) -> Option<Duration> {
    // The name of the process, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn kilobytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 9 0 1";
        assert_eq!(cpu_of(stat), Some(Duration::from_millis(1750)));
        assert_eq!(cpu_of("42 (x) S"), None);
        assert_eq!(kilobytes("Name:\tx\nVmHWM:\t  2048 kB\n", "VmHWM:"), Some(2 << 20));
    }

    #[test]
    fn this_process_can_be_looked_at_and_no_other_than_those_that_run() {
        let usage = super::usage("self").unwrap();
        assert!(usage.resident > 0 && usage.peak >= usage.resident / 2);
        assert!(super::usage("0").unwrap_err().contains("--pid"));
    }
}
