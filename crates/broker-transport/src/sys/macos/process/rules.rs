//! What a refused exec means on macOS, and what a supervisor does next.
//!
//! Pure, without a system call or a type of the system's, so it is tested on other systems, too.
//! Invariant: a child that has ended is never signalled.

/// What macOS refuses an exec for, beyond what every Unix does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecRefusal {
    /// `EPERM` or `EACCES`: what a quarantine looks like, among others.
    Forbidden,
    /// Made for another processor, or damaged.
    Format,
}

/// By the numbers of `<sys/errno.h>`.
pub(crate) fn exec_refusal(errno: i32) -> Option<ExecRefusal> {
    match errno {
        // EPERM, EACCES.
        1 | 13 => Some(ExecRefusal::Forbidden),
        // EBADEXEC, EBADARCH, ESHLIBVERS, EBADMACHO.
        85..=88 => Some(ExecRefusal::Format),
        _ => None,
    }
}

/// Which of the two that a supervisor watches have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) parent: bool,
    pub(crate) child: bool,
}

/// What a supervisor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    /// Tells the child to end, and ends.
    Terminate,
    End,
}

impl Ended {
    /// The number of a child that has ended may be another's.
    pub(crate) const fn step(self) -> Step {
        match self {
            Self { child: true, .. } => Step::End,
            Self { parent: true, .. } => Step::Terminate,
            Self { .. } => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_exec_is_told_by_its_number() {
        for forbidden in [1, 13] {
            assert_eq!(exec_refusal(forbidden), Some(ExecRefusal::Forbidden));
        }
        for format in 85..=88 {
            assert_eq!(exec_refusal(format), Some(ExecRefusal::Format));
        }
        for other in [0, 2, 8, 26, 84, 89] {
            assert_eq!(exec_refusal(other), None, "{other}");
        }
    }

    #[test]
    fn a_supervisor_signals_a_living_child_of_a_dead_parent_and_nobody_else() {
        let step = |parent, child| Ended { parent, child }.step();
        assert_eq!(step(false, false), Step::Wait);
        assert_eq!(step(true, false), Step::Terminate);
        assert_eq!(step(false, true), Step::End);
        assert_eq!(step(true, true), Step::End);
    }
}
