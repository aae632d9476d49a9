//! Memory.

/// Bytes of this process that are resident now; zero where the system does not tell.
pub(super) fn resident() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.map_or(0, |kib: u64| kib << 10)
    }
    #[cfg(not(target_os = "linux"))]
    0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_becomes_resident() {
        let before = resident();
        let written = vec![1_u8; 64 << 20];
        let after = resident();
        assert!(before > 0 && after >= before + (32 << 20), "{before} {after}");
        drop(written);
    }
}
