//! What a node holds stays below what its limits add up to.

use stubborn_core::limits::Limits;
use stubborn_core::node::Node;

#[derive(Default)]
pub(crate) struct Memory {}

impl Memory {
    pub(crate) fn check(
        &mut self,
        _node: &Node,
        _limits: &Limits,
        _host: &str,
    ) -> Result<(), String> {
        Ok(())
    }
}
