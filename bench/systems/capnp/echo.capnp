@0xb0b5f1c0e5a7d3c1;

# What is called. The stubs are committed; to renew them:
#   capnp compile -orust:src systems/capnp/echo.capnp   (with capnpc-rust of the same version)
interface Echo {
  # Returns what it was sent.
  echo @0 (payload :Data) -> (payload :Data);
  # Takes what it is sent, and says how much that was.
  upload @1 (payload :Data) -> (bytes :UInt64);
}
