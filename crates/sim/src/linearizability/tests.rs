use stubborn_core::random::Random;

use super::*;

/// A register.
struct Register;

#[derive(Clone, Copy, Debug)]
enum Ask {
    Write(u64),
    /// Expected, new, and whether they were exchanged, if that is known.
    Swap(u64, u64, Option<bool>),
    Read(Option<u64>),
}

impl Model for Register {
    type State = u64;
    type Operation = Ask;

    fn step(state: &u64, operation: &Ask) -> Option<u64> {
        match *operation {
            Ask::Write(value) => Some(value),
            Ask::Swap(expected, new, answer) => {
                let swaps = *state == expected;
                let fits = answer.is_none_or(|answer| answer == swaps);
                fits.then_some(if swaps { new } else { *state })
            }
            Ask::Read(answer) => answer.is_none_or(|answer| answer == *state).then_some(*state),
        }
    }
}

fn span(begun: u64, ended: impl Into<Option<u64>>, operation: Ask) -> Span<Ask> {
    Span { operation, begun, ended: ended.into() }
}

fn fits(history: &[Span<Ask>]) -> bool {
    is_linearizable::<Register>(0, history.to_vec())
}

#[test]
fn a_read_that_began_after_a_write_ended_must_see_it() {
    let write = span(1, 2, Ask::Write(7));
    assert!(fits(&[write.clone(), span(3, 4, Ask::Read(Some(7)))]));
    assert!(!fits(&[write, span(3, 4, Ask::Read(Some(0)))]));
}

#[test]
fn operations_at_the_same_time_may_be_in_either_order() {
    let write = span(1, 5, Ask::Write(7));
    for seen in [0, 7] {
        assert!(fits(&[write.clone(), span(2, 3, Ask::Read(Some(seen)))]));
    }
    let (new, old) = (span(2, 3, Ask::Read(Some(7))), span(4, 6, Ask::Read(Some(0))));
    assert!(!fits(&[write, new, old]), "a value that was seen is not unseen again");
}

#[test]
fn an_operation_without_an_end_may_be_done_late_or_never() {
    let write = span(1, None, Ask::Write(7));
    assert!(fits(&[write.clone(), span(2, 3, Ask::Read(Some(0)))]));
    let late = [span(2, 3, Ask::Read(Some(0))), span(4, 5, Ask::Read(Some(7)))];
    let mut history = vec![write];
    history.extend(late);
    assert!(fits(&history));
    history.push(span(6, 7, Ask::Read(Some(0))));
    assert!(!fits(&history), "it is done once");
}

#[test]
fn a_long_history_of_many_clients_is_judged_soon() {
    // Each begins before the one before it has ended.
    let step = |n: u64| {
        [span(4 * n, 4 * n + 5, Ask::Write(n)), { span(4 * n + 6, 4 * n + 7, Ask::Read(Some(n))) }]
    };
    let mut history: Vec<_> = (0..100).flat_map(step).collect();
    history.extend((0..3).map(|n| span(100 * n + 3, None, Ask::Write(10_000 + n))));
    assert!(fits(&history));
    history.push(span(9_000, 9_001, Ask::Read(Some(3))));
    assert!(!fits(&history));
}

/// Tries every order of all that ended and of any of the others.
fn by_force(state: u64, left: &[Span<Ask>]) -> bool {
    if left.iter().all(|span| span.ended.is_none()) {
        return true;
    }
    (0..left.len()).any(|place| {
        let span = &left[place];
        let is_late = left.iter().any(|other| other.ended.is_some_and(|end| end < span.begun));
        let mut rest = left.to_vec();
        rest.remove(place);
        !is_late
            && Register::step(&state, &span.operation).is_some_and(|after| by_force(after, &rest))
    })
}

/// A history of up to six operations, whose answers are often right.
fn draw(random: &mut Random) -> Vec<Span<Ask>> {
    let count = 1 + random.below(6);
    let mut moments: Vec<u64> = (0..2 * count).collect();
    for place in (1..moments.len()).rev() {
        moments.swap(place, random.below(place as u64 + 1) as usize);
    }
    let spans = moments.chunks(2).map(|pair| {
        let (begun, ended) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
        let ended = (!random.chance(0.2)).then_some(ended);
        let value = random.below(3);
        let operation = match random.below(3) {
            0 => Ask::Write(value),
            1 => {
                let answer = ended.map(|_| random.chance(0.5));
                Ask::Swap(value, random.below(3), answer)
            }
            _ => Ask::Read(ended.map(|_| value)),
        };
        Span { operation, begun, ended }
    });
    spans.collect()
}

#[test]
fn the_verdict_is_that_of_trying_every_order() {
    let mut random = Random::from_seed([9; 32]);
    let mut verdicts = [0; 2];
    for round in 0..20_000 {
        let history = draw(&mut random);
        let verdict = fits(&history);
        verdicts[usize::from(verdict)] += 1;
        assert_eq!(verdict, by_force(0, &history), "round {round}: {history:?}");
    }
    assert!(verdicts.iter().all(|count| *count > 2_000), "both are met often: {verdicts:?}");
}
