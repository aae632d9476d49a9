//! Processor time.

use std::time::Duration;

/// Processor time that all threads of this process have used, in user mode and in the kernel; zero
/// where the system does not tell.
pub(super) fn used() -> Duration {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }
    #[cfg(not(unix))]
    Duration::ZERO
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn work_costs_processor_time() {
        let before = used();
        let mut sum = 0u64;
        while used() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(used() > before);
    }
}
