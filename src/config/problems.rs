//! Everything that is wrong with a configuration, by key: the operator sees all of it at once.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key as the operator would write it: `health.probe_path`, `nodes.static[2].address`, or the file's name.
    pub key: String,
    /// What is wrong; what to do.
    pub text: String,
}

/// All that is wrong. Shows one problem per line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems in the order of the file's tables; never empty where a load has failed.
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }

    pub(super) fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Problem { key: key.into(), text: text.into() });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An unknown key, with the nearest known one if there is one near.
    pub(super) fn unknown(&mut self, key: String, name: &str, known: &[&'static str]) {
        let text = match nearest(name, known) {
            Some(meant) => format!("unknown key; did you mean `{meant}`?"),
            None if known.is_empty() => "unknown key; remove it".to_owned(),
            None => format!("unknown key; known here: {}", known.join(", ")),
        };
        self.add(key, text);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, problem) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", problem.key, problem.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known word that `given` is probably a slip of the pen for: at most one edit per three letters.
fn nearest(given: &str, known: &[&'static str]) -> Option<&'static str> {
    let given: Vec<char> = given.to_ascii_lowercase().chars().take(LONGEST_GUESSED).collect();
    let (distance, word) =
        known.iter().map(|word| (edits(&given, &word.chars().collect::<Vec<_>>()), *word)).min_by_key(|(d, _)| *d)?;
    (distance <= word.len().div_ceil(3)).then_some(word)
}

/// A longer key is no slip of the pen; it is cut before it is compared.
const LONGEST_GUESSED: usize = 64;

/// Levenshtein's distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_key_and_a_stranger_does_not() {
        let known = ["probe_interval", "probe_path", "bind"];
        assert_eq!(nearest("probe_intervall", &known), Some("probe_interval"));
        assert_eq!(nearest("Probe_Path", &known), Some("probe_path"));
        assert_eq!(nearest("bnid", &known), Some("bind"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn problems_show_one_per_line_key_first() {
        let mut problems = Problems::default();
        problems.add("a.b", "is wrong; do this");
        problems.unknown("c".to_owned(), "c", &[]);
        assert_eq!(problems.to_string(), "a.b: is wrong; do this\nc: unknown key; remove it");
    }
}
