//! What the operating system knows of a process: where it runs, its time, its memory.

use std::fs;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::Result;

/// Lets this process, with all threads that it will start, run on these processors only; on all if
/// there are none.
///
/// # Errors
/// If the system refuses.
pub fn pin(cores: &[usize]) -> Result {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
        .map_err(|e| format!("cannot run on processors {cores:?}: {e}").into())
}

/// Processor time that all threads of a process have used, in user mode and in the kernel.
///
/// # Errors
/// If there is no such process.
pub fn cpu_time(pid: i32) -> Result<Duration> {
    Ok(clock_gettime(clock_getcpuclockid(Pid::from_raw(pid))?)?.into())
}

/// Resident memory of a process now and at most so far, in bytes.
///
/// # Errors
/// If there is no such process.
pub fn memory(pid: i32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line?.trim_start_matches(':').trim().strip_suffix("kB")?;
        kilobytes.trim().parse::<u64>().ok().map(|kb| kb * 1024)
    };
    match (field("VmRSS"), field("VmHWM")) {
        (Some(resident), Some(peak)) => Ok(Memory { resident, peak }),
        _ => Err(format!("/proc/{pid}/status tells no memory").into()),
    }
}

/// See [`memory`].
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident: u64,
    pub peak: u64,
}

/// Lets this process open as many files and sockets as the system permits.
///
/// # Errors
/// If the system refuses.
pub fn raise_file_limit() -> Result {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_there_has_neither_time_nor_memory() {
        // Linux numbers processes up to 2^22.
        const NOBODY: i32 = (1 << 22) + 1;
        assert!(cpu_time(NOBODY).is_err());
        assert!(memory(NOBODY).is_err());
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id() as i32;
        assert!(cpu_time(pid).unwrap() > Duration::ZERO);
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
    }
}
