//! Programs that end with the process that started them, however that ends: QEMU, TPMs, test runs.
//!
//! A signal cannot be handled by a process that gets SIGKILL, so the kernel ends the program: its parent-death signal is
//! SIGKILL (`PR_SET_PDEATHSIG`). `setpriv` of util-linux sets it between fork and exec, without unsafe code here. A shell
//! then checks that the parent is still there, as the signal does not come for a parent that has ended before.
//!
//! The signal comes when the *thread* ends that started the program. A thread that starts one must wait for its end.
//!
//! A module of these tests and of `xtask`.
#![forbid(unsafe_code)]

use std::process::Command;

/// Ends without starting the program (`$@`) unless the parent process is the one of number `$0`.
const START_BELOW_PARENT: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;

/// The same command for a program that ends with the calling thread. Its standard input and outputs are to be set on the
/// result.
pub fn tied(command: &Command) -> Command {
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL", "--", "sh", "-c", START_BELOW_PARENT, &std::process::id().to_string()]);
    tied.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        tied.current_dir(folder);
    }
    tied
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::thread::sleep;
    use std::time::{Duration, Instant};
    use std::{env, fs};

    use super::*;

    /// Set for a test that is the inner part of another one.
    const INNER: &str = "FIRSTLIGHT_INNER_TEST";

    /// Prints its process number and sleeps.
    pub const SLEEPER: &str = "echo $$; exec sleep 600";

    /// A command that a shell runs.
    pub fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// Whether this process is to run inner tests. They have no meaning by themselves.
    pub fn is_inner() -> bool {
        env::var_os(INNER).is_some()
    }

    /// Checks that a program ends with the process that started it. `inner` is the path of an ignored test that starts
    /// [`SLEEPER`] and waits for it. It runs in a process of its own, which gets SIGTERM or SIGKILL.
    pub fn assert_ends_with_its_starter(inner: &str) {
        for signal in ["TERM", "KILL"] {
            let mut starter = Command::new(env::current_exe().expect("this program"));
            starter.args(["--exact", inner, "--ignored", "--nocapture"]).env(INNER, "");
            let mut starter = starter.stdout(Stdio::piped()).spawn().expect("this program starts again");
            let lines = BufReader::new(starter.stdout.take().expect("a pipe")).lines();
            let mut numbers = lines.map_while(Result::ok).filter_map(|line| line.trim().parse::<u32>().ok());
            let program = numbers.next().expect("the program prints its number");
            assert!(is_running(program));
            let sent = Command::new("kill").args(["-s", signal, &starter.id().to_string()]).status();
            assert!(sent.is_ok_and(|status| status.success()));
            starter.wait().expect("the end of a child");
            let start = Instant::now();
            while is_running(program) {
                assert!(start.elapsed() < Duration::from_secs(10), "{inner}: the program outlives SIG{signal}");
                sleep(Duration::from_millis(10));
            }
        }
    }

    /// Whether the process is there and has not ended. A zombie has: it waits for its parent, which may be the system's
    /// first process.
    fn is_running(process: u32) -> bool {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let state = status.lines().find_map(|line| line.strip_prefix("State:"));
        state.is_some_and(|state| !state.trim_start().starts_with(['Z', 'X']))
    }

    #[test]
    #[ignore = "the inner part of the next test"]
    fn starts_a_tied_program() {
        if is_inner() {
            tied(&shell(SLEEPER)).status().expect("a shell starts");
        }
    }

    #[test]
    fn a_tied_program_ends_with_its_starter() {
        let inner = concat!(module_path!(), "::starts_a_tied_program");
        assert_ends_with_its_starter(inner.split_once("::").expect("the crate's name").1);
    }

    #[test]
    fn a_program_whose_starter_has_ended_already_is_not_started() {
        let tied = tied(&shell("echo started"));
        // The shell in between is the parent then. It forks, as this is not its last command.
        let mut other = shell("\"$@\"; exit $?");
        other.arg("sh").arg(tied.get_program()).args(tied.get_args());
        let output = other.output().expect("a shell starts");
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    }

    #[test]
    fn a_tied_program_gets_its_arguments_environment_and_folder_unchanged() {
        let mut command = shell("echo \"$1|$2|$WORDS|$PWD\"; exit 7");
        command.args(["sh", "a b", ""]).env("WORDS", "c d").current_dir("/");
        let output = tied(&command).output().expect("a shell starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a b||c d|/\n");
        assert_eq!(output.status.code(), Some(7));
    }
}
