//! What an operator asks for, and the order that it becomes.

use std::time::Duration;

/// How long a drain takes at most where nobody says.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);
/// The farthest deadline: one that lies farther is more likely a slip of the pen.
const FARTHEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Legs moved per second by all doors together where nobody says.
const DEFAULT_PER_SECOND: u32 = 5;
/// The fastest pace: above it a drain is what it shall prevent, a herd.
pub const MAX_PER_SECOND: u32 = 1000;

/// What becomes of the legs of a draining node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Migrate {
    /// They are moved to other nodes, a few per second; what is left at the deadline is ended.
    #[default]
    Paced,
    /// They end by themselves; what is left at the deadline is ended.
    Wait,
    /// They stay, without a deadline; the node only takes no new ones.
    None,
}

impl Migrate {
    /// The word of the admin API and of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paced => "paced",
            Self::Wait => "wait",
            Self::None => "none",
        }
    }
}

/// When what is left on the node is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// So long after it was asked for. The same duration asked for again moves nothing, so that a repeated call is the
    /// same call.
    After(Duration),
    /// At this time, ms since the epoch.
    At(i64),
}

/// What an operator asks for. What is absent takes its default, or stays as it is where the node drains already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainWish {
    /// Default: 10 minutes.
    pub deadline: Option<Deadline>,
    /// Default: `paced`.
    pub migrate: Option<Migrate>,
    /// Legs per second of all doors together, 1 to [`MAX_PER_SECOND`]; default 5.
    pub per_second: Option<u32>,
    /// Also if no other node of its role serves.
    pub force: bool,
}

/// Why a wish makes no sense, whatever the cluster is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadWish {
    /// The deadline is not in the future.
    #[error("the deadline is in the past")]
    PastDeadline,
    /// The deadline is more than 30 days off.
    #[error("the deadline is more than 30 days away")]
    FarDeadline,
    /// A deadline for legs that shall stay.
    #[error("`migrate` is `none`, which has no deadline")]
    UselessDeadline,
    /// `per_second` is outside 1 to [`MAX_PER_SECOND`].
    #[error("`per_second` is not between 1 and {MAX_PER_SECOND}")]
    BadPace,
}

/// What is to be done with the legs of a draining node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// They are moved, at the order's pace.
    Move,
    /// The deadline has passed: what is left is ended.
    End,
}

/// A drain as every door of the cluster holds it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DrainOrder {
    /// When the drain began, ms since the epoch. Names this drain among those that the node has had.
    pub since_ms: i64,
    /// When what is left is ended, ms since the epoch; `None` with [`Migrate::None`] only.
    pub deadline_ms: Option<i64>,
    /// The duration that the deadline was asked for as, ms.
    pub asked_ms: Option<i64>,
    /// What becomes of the legs.
    pub migrate: Migrate,
    /// Legs per second of all doors together.
    pub per_second: u32,
    /// When the node was seen to be empty, ms since the epoch: from then on it is drained, until the order is withdrawn.
    pub drained_ms: Option<i64>,
}

impl DrainOrder {
    /// The order that a wish becomes at `now_ms`, on top of the one before it, if the node drains already.
    ///
    /// # Errors
    /// The wish makes no sense; nothing has changed then.
    pub fn of(before: Option<&Self>, wish: &DrainWish, now_ms: i64) -> Result<Self, BadWish> {
        let migrate = wish.migrate.or(before.map(|before| before.migrate)).unwrap_or_default();
        let per_second = wish.per_second.or(before.map(|before| before.per_second)).unwrap_or(DEFAULT_PER_SECOND);
        if !(1..=MAX_PER_SECOND).contains(&per_second) {
            return Err(BadWish::BadPace);
        }
        let (deadline_ms, asked_ms) = match (migrate, wish.deadline) {
            (Migrate::None, Some(_)) => return Err(BadWish::UselessDeadline),
            (Migrate::None, None) => (None, None),
            (_, deadline) => deadline_of(before.filter(|before| before.migrate == migrate), deadline, now_ms)?,
        };
        Ok(Self {
            since_ms: before.map_or(now_ms, |before| before.since_ms),
            deadline_ms,
            asked_ms,
            migrate,
            per_second,
            drained_ms: before.and_then(|before| before.drained_ms),
        })
    }

    /// What is to be done with its legs now, if anything. Without the store nobody moves: a publisher's new origin could not
    /// be found by those who play it, and no edge finds a stream that it does not have yet. Where they are, legs are served;
    /// the deadline counts nevertheless.
    pub fn work(&self, now_ms: i64, store_away: bool) -> Option<Work> {
        if self.is_over(now_ms) { Some(Work::End) } else { (self.moves(now_ms) && !store_away).then_some(Work::Move) }
    }

    /// Whether what is left is ended now.
    pub fn is_over(&self, now_ms: i64) -> bool {
        self.deadline_ms.is_some_and(|deadline| deadline <= now_ms)
    }

    /// Whether its legs are on their way to other nodes, sooner or later.
    pub fn moves(&self, now_ms: i64) -> bool {
        self.migrate == Migrate::Paced && !self.is_over(now_ms)
    }
}

fn deadline_of(
    before: Option<&DrainOrder>,
    wish: Option<Deadline>,
    now_ms: i64,
) -> Result<(Option<i64>, Option<i64>), BadWish> {
    let known = before.map(|before| (before.deadline_ms, before.asked_ms));
    let new = match wish {
        None if known.is_some() => return Ok(known.unwrap_or_default()),
        None => (Some(now_ms.saturating_add(ms(DEFAULT_DEADLINE))), Some(ms(DEFAULT_DEADLINE))),
        Some(Deadline::After(after)) => (Some(now_ms.saturating_add(ms(after))), Some(ms(after))),
        Some(Deadline::At(at)) => (Some(at), None),
    };
    if known.is_some_and(|known| (new.1.is_some() && known.1 == new.1) || known.0 == new.0) {
        return Ok(known.unwrap_or_default());
    }
    match new.0 {
        Some(at) if at <= now_ms => Err(BadWish::PastDeadline),
        Some(at) if at.saturating_sub(now_ms) > ms(FARTHEST) => Err(BadWish::FarDeadline),
        _ => Ok(new),
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600_000;
    const MINUTE: i64 = 60_000;

    fn wish(deadline: Option<Deadline>, migrate: Option<Migrate>, per_second: Option<u32>) -> DrainWish {
        DrainWish { deadline, migrate, per_second, force: false }
    }

    #[test]
    fn an_empty_wish_is_ten_minutes_paced_at_five_a_second() {
        let order = DrainOrder::of(None, &DrainWish::default(), NOW).unwrap();
        assert_eq!((order.since_ms, order.deadline_ms), (NOW, Some(NOW + 10 * MINUTE)));
        assert_eq!((order.migrate, order.per_second, order.drained_ms), (Migrate::Paced, 5, None));
    }

    #[test]
    fn the_same_wish_again_is_the_same_order_and_what_is_absent_stays() {
        let first = wish(Some(Deadline::After(Duration::from_secs(60))), None, Some(9));
        let order = DrainOrder::of(None, &first, NOW).unwrap();
        assert_eq!(DrainOrder::of(Some(&order), &first, NOW + 30_000), Ok(order.clone()));
        assert_eq!(DrainOrder::of(Some(&order), &first, NOW + 5 * MINUTE), Ok(order.clone()), "also when it is over");
        assert_eq!(DrainOrder::of(Some(&order), &DrainWish::default(), NOW + MINUTE), Ok(order.clone()));
        let slower = DrainOrder::of(Some(&order), &wish(None, None, Some(1)), NOW).unwrap();
        assert_eq!(slower, DrainOrder { per_second: 1, ..order.clone() });
        let longer = wish(Some(Deadline::After(Duration::from_secs(120))), None, None);
        let longer = DrainOrder::of(Some(&order), &longer, NOW + MINUTE / 2).unwrap();
        assert_eq!(longer.deadline_ms, Some(NOW + MINUTE / 2 + 2 * MINUTE), "another duration counts from now");
        assert_eq!(longer.since_ms, NOW);
    }

    #[test]
    fn a_wish_that_makes_no_sense_says_which_part() {
        let long = Deadline::After(Duration::from_secs(31 * 24 * 3600));
        for (wish, why) in [
            (wish(Some(Deadline::At(NOW)), None, None), BadWish::PastDeadline),
            (wish(Some(Deadline::At(i64::MIN)), None, None), BadWish::PastDeadline),
            (wish(Some(Deadline::After(Duration::ZERO)), None, None), BadWish::PastDeadline),
            (wish(Some(long), None, None), BadWish::FarDeadline),
            (wish(Some(Deadline::After(Duration::MAX)), None, None), BadWish::FarDeadline),
            (wish(Some(Deadline::At(NOW + MINUTE)), Some(Migrate::None), None), BadWish::UselessDeadline),
            (wish(None, None, Some(0)), BadWish::BadPace),
            (wish(None, None, Some(MAX_PER_SECOND + 1)), BadWish::BadPace),
        ] {
            assert_eq!(DrainOrder::of(None, &wish, NOW), Err(why), "{wish:?}");
        }
    }

    #[test]
    fn legs_that_stay_have_no_deadline_until_they_shall_move() {
        let order = DrainOrder::of(None, &wish(None, Some(Migrate::None), None), NOW).unwrap();
        assert_eq!(order.deadline_ms, None);
        assert!(!order.is_over(i64::MAX) && !order.moves(NOW));
        let paced = DrainOrder::of(Some(&order), &wish(None, Some(Migrate::Paced), None), NOW + 20 * MINUTE).unwrap();
        assert_eq!(paced.deadline_ms, Some(NOW + 30 * MINUTE));
        assert!(paced.moves(NOW + 29 * MINUTE) && !paced.moves(NOW + 30 * MINUTE));
    }

    #[test]
    fn nobody_is_moved_while_the_store_is_away_and_the_deadline_counts_nevertheless() {
        let order = |migrate| DrainOrder::of(None, &wish(None, Some(migrate), None), NOW).unwrap();
        // what, minutes since, the store is away → work
        for (migrate, minutes, away, work) in [
            (Migrate::Paced, 0, false, Some(Work::Move)),
            (Migrate::Paced, 9, true, None),
            (Migrate::Paced, 10, false, Some(Work::End)),
            (Migrate::Paced, 10, true, Some(Work::End)),
            (Migrate::Wait, 9, false, None),
            (Migrate::Wait, 10, true, Some(Work::End)),
            (Migrate::None, 60, false, None),
        ] {
            assert_eq!(order(migrate).work(NOW + minutes * MINUTE, away), work, "{migrate:?}, {minutes}, {away}");
        }
    }
}
