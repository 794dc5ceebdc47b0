//! The words of the admin API where the domain has an enum: mirrored here so that the OpenAPI document knows them, and so
//! that a new one forces a choice.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{domain, registry};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $domain:ty { $($(#[$word_doc:meta])* $word:ident),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(super) enum $name {
            $($(#[$word_doc])* $word),+
        }

        impl From<$domain> for $name {
            fn from(word: $domain) -> Self {
                match word {
                    $(<$domain>::$word => Self::$word),+
                }
            }
        }

        impl From<$name> for $domain {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$word => Self::$word),+
                }
            }
        }
    )+};
}

words! {
    /// What a node does in the cluster.
    Role = domain::ids::Role {
        /// Takes publishes; serves edges.
        Origin,
        /// Takes plays; pulls from origins.
        Edge,
        /// Takes either.
        Both,
    }
    /// What a leg does.
    Kind = domain::ids::Kind {
        /// The client sends media.
        Publish,
        /// The client receives media.
        Play,
    }
    /// A node's state.
    NodeState = domain::balance::NodeState {
        /// Takes legs.
        Serving,
        /// New or recovered: takes legs slowly.
        Joining,
        /// Does not answer, or its links fail.
        Down,
        /// An operator wants it empty; takes no new legs.
        Draining,
        /// An operator wanted it empty, and it is.
        Drained,
    }
    /// What becomes of the legs of a draining node.
    Migrate = domain::drain::Migrate {
        /// They are moved to other nodes, a few per second; what is left at the deadline is ended.
        Paced,
        /// They end by themselves; what is left at the deadline is ended.
        Wait,
        /// They stay, without a deadline; the node only takes no new ones.
        None,
    }
    /// Where a drain is kept.
    Kept = registry::Kept {
        /// In the cluster's store: every door sees it.
        Cluster,
        /// In this door's state_dir until MongoDB is back: survives a restart of this door.
        Door,
        /// In this door's memory only: no MongoDB, and no state_dir.
        Memory,
    }
    /// Why a node won or lost.
    Verdict = domain::balance::Verdict {
        /// Takes the leg.
        Chosen,
        /// Fit, but another one was better by the policy.
        Outscored,
        /// Fit, but stands in another zone than the origin.
        OtherZone,
        /// With this leg it would be too far above the mean of its peers.
        AboveBound,
        /// At one of its limits.
        AtLimit,
        /// Joining, and has had its share of new legs for now.
        JoiningTooFast,
        /// Down, draining or drained.
        NotServing,
        /// Has already failed this leg.
        Excluded,
        /// Its role does not take this kind.
        WrongRole,
        /// The rule names another node.
        NotAsked,
    }
    /// The status of a stream's record as AMS wrote it.
    Status = domain::record::Status {
        /// Made by REST, not yet published.
        Created,
        /// Media flows, if the record is fresh.
        Broadcasting,
        /// About to have media.
        Preparing,
        /// Ended.
        Finished,
        /// Anything else: never live.
        Other,
    }
}

impl Verdict {
    /// The verdict for people.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Chosen => "takes the leg",
            Self::Outscored => "fit, but another one was better by the policy",
            Self::OtherZone => "fit, but stands in another zone than the origin",
            Self::AboveBound => "with this leg it would be too far above the mean of its peers",
            Self::AtLimit => "at one of its limits",
            Self::JoiningTooFast => "joining, and has had its share of new legs for now",
            Self::NotServing => "down, draining or drained",
            Self::Excluded => "already failed this leg",
            Self::WrongRole => "its role does not take this kind",
            Self::NotAsked => "the rule names another node",
        }
    }

    /// The verdict as a key.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Outscored => "outscored",
            Self::OtherZone => "other_zone",
            Self::AboveBound => "above_bound",
            Self::AtLimit => "at_limit",
            Self::JoiningTooFast => "joining_too_fast",
            Self::NotServing => "not_serving",
            Self::Excluded => "excluded",
            Self::WrongRole => "wrong_role",
            Self::NotAsked => "not_asked",
        }
    }
}
