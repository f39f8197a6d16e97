//! Which of the inputs that were found go into the repository: those that reach most of what nothing there does.
//!
//! libFuzzer writes down what each input reaches; choosing is ours, as it would keep all that reach anything new.
//! Invariant: a corpus grows to [`MOST`] inputs at most, and never with one that reaches nothing new.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::workspace::TaskError;

/// How many inputs the repository keeps for a target at most, seeds among them.
pub(super) const MOST: usize = 60;

/// An input and the edges that it reaches.
struct Input {
    path: PathBuf,
    edges: BTreeSet<u32>,
}

/// Chooses by the control file of a merge of `corpus`, which has `kept` inputs, with what was found.
pub(super) fn choose(control: &str, corpus: &Path, kept: usize) -> Result<Vec<PathBuf>, TaskError> {
    let (there, mut found): (Vec<_>, Vec<_>) =
        read(control)?.into_iter().partition(|input| input.path.starts_with(corpus));
    let mut covered: BTreeSet<u32> = there.iter().flat_map(|input| input.edges.iter().copied()).collect();
    let mut chosen = Vec::new();
    while kept + chosen.len() < MOST {
        for input in &mut found {
            input.edges.retain(|edge| !covered.contains(edge));
        }
        // Of two that add as much, the first: libFuzzer lists short ones before long ones.
        let best = found.iter().enumerate().rev().max_by_key(|(_, input)| input.edges.len());
        let Some((at, _)) = best.filter(|(_, input)| !input.edges.is_empty()) else { break };
        let best = found.swap_remove(at);
        covered.extend(best.edges);
        chosen.push(best.path);
    }
    Ok(chosen)
}

/// `COUNT`, `COUNT OF THE FIRST FOLDER`, a line for each path, then a line `FT INDEX EDGE...` for each that was run.
fn read(control: &str) -> Result<Vec<Input>, TaskError> {
    let mut lines = control.lines();
    let count: usize = lines.next().unwrap_or_default().parse()?;
    lines.next();
    let mut inputs: Vec<_> =
        lines.by_ref().take(count).map(|path| Input { path: path.into(), edges: BTreeSet::new() }).collect();
    for line in lines.filter_map(|line| line.strip_prefix("FT ")) {
        let mut numbers = line.split_whitespace();
        let index: usize = numbers.next().unwrap_or_default().parse()?;
        let input = inputs.get_mut(index).ok_or("the control file names an input that it does not list")?;
        input.edges = numbers.map(str::parse).collect::<Result<_, _>>()?;
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: &str = "\
4
1
corpus/seed
found/a
found/b
found/c
STARTED 0 3
FT 0 1 2
COV 0 1 2
STARTED 1 4
FT 1 1 3
COV 1 3
STARTED 2 5
FT 2 2 3 4 5
COV 2 4 5
STARTED 3 6
FT 3 1 2
COV 3
";

    #[test]
    fn what_reaches_most_is_chosen_first_and_what_reaches_nothing_new_is_not() {
        assert_eq!(choose(CONTROL, Path::new("corpus"), 1).unwrap(), [Path::new("found/b")]);
        assert_eq!(choose(CONTROL, Path::new("elsewhere"), 0).unwrap().len(), 2);
    }

    #[test]
    fn a_corpus_has_sixty_inputs_at_most() {
        let paths: String = (0..100).map(|index| format!("found/{index}\n")).collect();
        let edges: String = (0..100).map(|index| format!("FT {index} {index}\n")).collect();
        // One that is empty counts, and is in no control file.
        let chosen = choose(&format!("100\n0\n{paths}{edges}"), Path::new("corpus"), 1).unwrap();
        assert_eq!(chosen.len(), MOST - 1);
        assert_eq!(chosen[0], Path::new("found/0"));
    }

    #[test]
    fn a_control_file_that_is_none_is_an_error() {
        assert!(choose("", Path::new("corpus"), 0).is_err());
        assert!(choose("1\n0\nfound/a\nFT 7 1\n", Path::new("corpus"), 0).is_err());
    }
}
