//! Whose turn it is when several callers hear of replies at once.
//!
//! Where most of a client's calls travel in one batch, client and server wait for each other, and the
//! batch stays together for ever: its replies come together, and so do the next calls. Halved once, one
//! half is at the peer while the other is here, and neither is halved again.
//!
//! On a runtime with several threads callers are not kept waiting so: another thread may take them.

/// Fewer callers are not halved: a send more would cost more than both sides gain by working at once.
const LEAST_HALVED: usize = 8;

/// How many of the callers whose calls have ended are woken first, with so many calls under way beside
/// theirs. The others are woken when what these call next has left.
pub(super) fn turn_of(ended: usize, under_way: usize) -> usize {
    let most = ended > under_way;
    if most && ended >= LEAST_HALVED { ended.div_ceil(2) } else { ended }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The batches that so many calls end up in if replies come as their calls were sent.
    fn settled(mut batches: Vec<usize>) -> Vec<usize> {
        for _ in 0..100 {
            let ended = batches.remove(0);
            let under_way = batches.iter().sum();
            let first = turn_of(ended, under_way);
            batches.extend([first, ended - first].into_iter().filter(|batch| *batch > 0));
        }
        batches.sort_unstable();
        batches
    }

    #[test]
    fn one_batch_becomes_two_and_stays_so() {
        assert_eq!(settled(vec![16]), [8, 8]);
        assert_eq!(settled(vec![1024]), [512, 512]);
    }

    #[test]
    fn one_that_has_nearly_all_calls_is_halved_and_the_small_ones_stay() {
        assert_eq!(settled(vec![15, 1]), [1, 7, 8]);
        assert_eq!(settled(vec![100, 20, 8]), [8, 20, 50, 50]);
    }

    #[test]
    fn few_callers_have_their_turn_together() {
        assert_eq!(settled(vec![7]), [7]);
        assert_eq!(turn_of(0, 0), 0);
    }

    #[test]
    fn every_caller_is_woken_though_none_calls_again() {
        let mut left = 1_000;
        while left > 0 {
            let turn = turn_of(left, 0);
            assert!(turn > 0);
            left -= turn;
        }
    }
}
