//! A call is lost only where the memory of its server was destroyed.

use super::calls::Token;

/// Judges a call that was reported lost. `destroyed`: the server that its session was at has been
/// killed since the session was attached.
pub(crate) fn judge(token: Token, destroyed: bool) -> Result<(), String> {
    if destroyed {
        return Ok(());
    }
    Err(format!("the call {token} was reported lost, but its server never lost its memory"))
}
