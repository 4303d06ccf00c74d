//! Points at which a test can observe or kill the engine.

use std::fmt;
use std::sync::Arc;

use innkeeper_model::Verb;

/// Before or after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Before the step starts.
    Before,
    /// After the step, before its result is recorded.
    After,
}

/// A point in an operation, written `create:ensure-rootfs:before`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The operation's verb.
    pub verb: Verb,
    /// A step of the plan, or `accept` (recording the intent), or `finish`.
    pub step: &'static str,
    /// Before or after the step.
    pub edge: Edge,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edge = match self.edge {
            Edge::Before => "before",
            Edge::After => "after",
        };
        write!(f, "{}:{}:{edge}", self.verb, self.step)
    }
}

/// Called at every [`Point`]. The crash tests discover the points with it, so they cover new steps automatically.
pub type Probe = Arc<dyn Fn(Point) + Send + Sync>;
