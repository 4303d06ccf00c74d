//! Places where a test can watch the engine, or kill it.

use std::fmt;
use std::sync::Arc;

use innkeeper_model::Verb;

/// Before or after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The step has not begun.
    Before,
    /// The step is done, and nobody has been told.
    After,
}

/// A place in an operation, written `create:ensure-rootfs:before`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The operation's verb.
    pub verb: Verb,
    /// The step; besides the plan's steps there are `accept` (recording the intent) and `finish`.
    pub step: &'static str,
    /// Before or after it.
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

/// Called at every [`Point`]. The crash tests find the points by themselves with it, so that a new step is
/// covered the day it is written.
pub type Probe = Arc<dyn Fn(Point) + Send + Sync>;
