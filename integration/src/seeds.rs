//! Seeds of tests that choose at random: the committed ones that failed once, then a new one; `TAILWATER_TEST_SEED` names the only
//! one. `TAILWATER_TEST_LONG=1` asks for the long form of such tests.
//!
//! A seed fixes what a test chooses, not how the machine schedules it: a failure may need several runs to come back.

use crate::binary;
use crate::lines::Numbers;

const LIST: &str = "integration/tests/durability/seeds.txt";

/// The seeds of the test `name`; each is printed, so a failure says how to repeat it.
///
/// # Panics
/// If the committed list or the variable is not what it should be.
#[must_use]
#[expect(clippy::print_stdout, reason = "the test harness shows it beside a failure")]
pub fn of(name: &str) -> Vec<u64> {
    let seeds = match std::env::var("TAILWATER_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("TAILWATER_TEST_SEED is a number")],
        Err(_) => {
            let list = std::fs::read_to_string(binary::workspace().join(LIST)).expect("the list of seeds is there");
            let mut seeds = listed(&list, name);
            // Six digits are typed more easily than twenty.
            seeds.push(Numbers::new(crate::now_ns().cast_unsigned() ^ u64::from(std::process::id())).below(1_000_000));
            seeds
        }
    };
    for seed in &seeds {
        println!("{name}: seed {seed}; TAILWATER_TEST_SEED={seed} repeats it");
    }
    seeds
}

/// Whether the long form is asked for.
#[must_use]
pub fn long() -> bool {
    std::env::var_os("TAILWATER_TEST_LONG").is_some_and(|value| value != "0")
}

/// Lines are `NAME SEED # what failed`.
fn listed(list: &str, name: &str) -> Vec<u64> {
    list.lines()
        .map(|line| line.split('#').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>())
        .filter(|words| !words.is_empty())
        .filter_map(|words| match words[..] {
            [test, seed] if test == name => Some(seed.parse().expect("a seed is a number")),
            [_, _] => None,
            _ => panic!("{LIST}: no name and seed: {words:?}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_seeds_by_test() {
        let list = "# comment\n\nkills 1 # lost a line\nuploads 2\nkills 3\n";
        assert_eq!(
            (listed(list, "kills"), listed(list, "uploads"), listed(list, "other")),
            (vec![1, 3], vec![2], vec![])
        );
    }
}
