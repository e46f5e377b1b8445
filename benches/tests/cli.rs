//! The `sexton-bench` command as a user meets it: what it prints, where, and how it ends.
//!
//! Standard output and error are pipes here, so whatever is meant for a terminal only must not
//! show.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Output};
use std::{fs, io};

use tempfile::TempDir;

/// What a run of the command left behind.
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the command starts"))
    }

    fn from(output: Output) -> Self {
        let [out, err] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8(bytes).expect("output is UTF-8"));
        Run { code: output.status.code(), out, err }
    }

    /// Each of `words` is on standard output.
    fn assert_out(&self, words: &[&str]) {
        assert_has(&self.out, words);
    }

    /// None of `words` is on standard output.
    fn assert_not_out(&self, words: &[&str]) {
        words.iter().for_each(|word| assert!(!self.out.contains(word), "{word:?}: {}", self.out));
    }

    /// The text behind a label of the tour's table.
    fn row(&self, label: &str) -> &str {
        let row = self.out.lines().find_map(|line| line.strip_prefix(label));
        row.unwrap_or_else(|| panic!("no row {label:?} in:\n{}\n{}", self.out, self.err)).trim()
    }

    fn assert_row(&self, label: &str, start: &str) {
        assert!(self.row(label).starts_with(start), "{start:?} is not in: {}", self.out);
    }

    /// Success in silence: nothing on standard error.
    fn assert_silent(&self) {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
    }

    fn assert_complete(&self) {
        assert_eq!(self.code, Some(0), "{}", self.err);
        assert!(self.row("cleanups").contains(" / 0 pending"), "{}", self.out);
        if cfg!(target_os = "linux") {
            let (before, after) = self.row("file descriptors").split_once(" / ").expect("two");
            assert_eq!(before.strip_suffix(" before"), after.strip_suffix(" after"));
        }
    }

    /// Success, and on standard error lines of progress only: each begins with the time, and each
    /// of `words` is in one of them.
    fn assert_progress(&self, words: &[&str]) {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        let is_progress = |line: &str| line.starts_with("sexton-bench: 00:0");
        assert!(self.err.lines().all(is_progress), "{}", self.err);
        assert!(!self.err.contains('\x1b'), "no control sequences in a pipe");
        assert_has(&self.err, words);
    }

    /// A usage error: exit code 2, nothing on standard output, and one line on standard error that
    /// has all of `words`.
    fn assert_usage(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{}{}", self.out, self.err);
        assert_eq!(self.out, "");
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert_has(&self.err, words);
    }
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sexton-bench"))
}

fn assert_has(text: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in: {text}"));
}

/// Runs the command with these arguments, with blanks between them.
fn run(args: impl AsRef<str>) -> Run {
    Run::of(command().args(args.as_ref().split_whitespace()))
}

/// Has a shell replace itself by the command, which its line calls `$0`, with an argument `$1`.
#[cfg(unix)]
fn shell(line: &str, path: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line, env!("CARGO_BIN_EXE_sexton-bench")]).arg(path);
    shell
}

fn json(file: impl AsRef<Path>) -> serde_json::Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn tour(path: &Path) -> Run {
    Run::of(command().arg("tour").arg(path))
}

/// A tree with 3 directories, the top included, and 4 files.
fn tree() -> TempDir {
    let top = TempDir::new().expect("a temporary directory");
    fs::create_dir_all(top.path().join("a/b")).unwrap();
    for (file, text) in [("one", "1"), ("a/two", "22"), ("a/b/three", "333"), ("a/b/empty", "")] {
        fs::write(top.path().join(file), text).unwrap();
    }
    top
}

#[test]
fn without_arguments_it_shows_a_program_and_its_parts_with_units_and_says_what_comes_next() {
    let run = run("");
    run.assert_silent();
    for (label, unit) in [
        ("  allocated", "M objects/s"),
        ("  pause, longest", "ms"),
        ("  sweep plain objects", "ns per object"),
        ("  register a cleanup", "ns per cleanup"),
    ] {
        assert!(run.row(label).contains(unit), "{}", run.out);
    }
    let (ended, made) = run.row("  cleanups, run in all").split_once("of ").unwrap();
    assert_eq!(ended.trim(), made);
    for next in ["-- tour PATH", "--features peers -- run", "-- sweep", "-- scale", "-- --help"] {
        run.assert_out(&[&format!("cargo run --release {next}")]);
    }
    // All but the first line, which is the machine's.
    let wide = run.out.lines().skip(1).find(|line| line.chars().count() > 100);
    assert_eq!(wide, None);
}

#[test]
fn a_tour_is_of_the_current_directory_in_silence() {
    let top = tree();
    let run = Run::of(command().arg("tour").current_dir(top.path()));
    run.assert_complete();
    run.assert_silent();
    run.assert_row("index", "3 directories, 4 files, 0 links; 0 skipped");
    assert!(run.row("open files").contains("; 6 B read"), "{}", run.out);
    run.assert_not_out(&["\x1b"]);
    let labels = ["objects", "bytes", "mark", "sweep", "sweep throughput", "workers"];
    labels.iter().for_each(|label| _ = run.row(label));
}

#[test]
fn one_is_singular() {
    let top = TempDir::new().unwrap();
    fs::write(top.path().join("one"), "1").unwrap();
    let run = tour(top.path());
    run.assert_row("index", "1 directory, 1 file, 0 links");
    run.assert_not_out(&[" 1 collections"]);
    let sweep = self::run("sweep --objects 1 --live 100 --rounds 1");
    assert!(sweep.out.starts_with("1 object of 32 bytes in 1 span: "), "{}", sweep.out);
}

#[test]
fn every_open_file_is_closed_by_its_cleanup() {
    let top = tree();
    let run = tour(top.path());
    run.assert_complete();
    let opened = run.row("open files").split(' ').next().unwrap().to_owned();
    let expected =
        format!("{opened} registered / {opened} run / 0 pending; files they closed: {opened}");
    assert_eq!(run.row("cleanups"), expected);
}

#[test]
fn a_path_that_is_no_directory_is_an_error_of_one_line() {
    run("tour /no/such/tree").assert_usage(&["/no/such/tree", "directory that can be listed"]);
    tour(&tree().path().join("one")).assert_usage(&["one", "not a directory"]);
    tour(Path::new("no\nsuch")).assert_usage(&[r"no\nsuch"]);
}

#[test]
fn flags_out_of_range_are_errors_of_one_line_with_the_range() {
    for (args, range) in [
        ("sweep --objects 0", "valid is 1 to 100000000"),
        ("sweep --objects 100000001", "valid is 1 to 100000000"),
        ("sweep --objects -3", "valid is 1 to 100000000"),
        ("sweep --objects many", "valid is 1 to 100000000"),
        ("sweep --objects 1.5M", "500k and 4M are understood"),
        ("sweep --live 101", "valid is 0 to 100"),
        ("sweep --live -1", "valid is 0 to 100"),
        ("sweep --cleanups NaN", "valid is 0 to 100"),
        ("sweep --rounds 0", "1..=1000"),
        ("scale --objects 0", "valid is 1 to 100000000"),
        ("scale --objects many", "valid is 1 to 100000000"),
        ("pauses --rounds 0", "1..=1000"),
        ("scale --threads 65", "1..=64"),
        ("scale --rounds 0", "1..=1000"),
        ("run --rounds 1001", "1..=1000"),
        ("run --rounds -1", "1..=1000"),
    ] {
        let (flag, value) = args.rsplit_once(' ').unwrap();
        let flag = flag.split(' ').next_back().unwrap();
        run(args).assert_usage(&[flag, value, range]);
    }
}

#[test]
fn unknown_words_are_errors_of_one_line() {
    run("dance").assert_usage(&["dance"]);
    run("swep").assert_usage(&["'swep'", "did you mean `sweep`?"]);
    run("/").assert_usage(&["'/'", "did you mean `tour /`?"]);
    run("tour --fast").assert_usage(&["--fast"]);
    // One thread sweeps: a number of threads would have no effect.
    run("sweep --threads 2").assert_usage(&["--threads"]);
    run("sweep --live").assert_usage(&["--live"]);
    run("scale W7").assert_usage(&["W7", "valid is W2, W2c, W3, W4"]);
    run("scale --json /no/such/folder/it").assert_usage(&["--json", "/no/such/folder"]);
}

#[test]
fn help_and_version_are_not_errors() {
    for (args, words) in [
        ("--help", ["tour", "sweep"]),
        ("sweep --help", ["--objects", "--live"]),
        ("run --help", ["W2c:", "sweep with cleanups"]),
        ("plot --help", ["S5:", "pauses of a large heap"]),
        ("pauses --help", ["local-200us", "--markdown"]),
        ("scale --help", ["W2c (sweep with cleanups)", "one thread sweeps"]),
        ("--version", ["sexton-bench", env!("CARGO_PKG_VERSION")]),
    ] {
        let run = run(args);
        run.assert_silent();
        run.assert_out(&words);
    }
}

#[test]
fn sweep_prints_figures_for_the_shape_in_silence() {
    let run = run("sweep --objects 20k --live 25 --cleanups 50% --rounds 2");
    run.assert_silent();
    assert!(run.out.starts_with("20,000 objects of 32 bytes in "), "{}", run.out);
    let labels = ["mark, ns", "sweep, ns per object", "sweep, ns per span", "sweep, objects/s"];
    labels.into_iter().chain(["sweep, bytes/s", "queue, ns"]).for_each(|label| _ = run.row(label));
}

#[test]
fn sweep_prints_a_line_for_every_combination_of_lists() {
    let args = "sweep --objects 10k,20k,40k --live 0,50 --cleanups 0,10% --rounds 1";
    let run = run(args);
    run.assert_silent();
    for objects in ["10,000 ", "20,000 ", "40,000 "] {
        let lines = run.out.lines().filter(|line| line.starts_with(objects));
        assert_eq!(lines.count(), 4, "{}", run.out);
    }
    let columns =
        [" spans ", "sweep ns/object", "sweep ns/span", "sweep objects/s", "sweep bytes/s"];
    run.assert_out(&columns);
    // For each shape, one line for its three sizes.
    let growths = run.out.lines().filter(|line| line.starts_with("growth, "));
    assert_eq!(growths.count(), 4, "{}", run.out);
    assert!(run.out.starts_with("medians of 1 round;"), "{}", run.out);
}

#[test]
fn scale_prints_a_line_for_every_row_and_size_and_its_progress() {
    let args = "scale w2 W3 --objects 20k,10k --threads 2,1 --rounds 2";
    let run = run(args);
    run.assert_progress(&["round 1 of 2: W2, sweep, 10,000 objects", "round 2 of 2: W3, mark, "]);
    for objects in [" 10,000 ", " 20,000 "] {
        let lines: Vec<&str> = run.out.lines().filter(|line| line.contains(objects)).collect();
        assert_eq!(lines.len(), 4, "{}", run.out);
        // Two numbers of threads, their ratio, and the growth.
        lines.iter().for_each(|line| assert_eq!(line.matches(" to ").count(), 4, "{line}"));
    }
    run.assert_out(&["W2.50 ", "W3.random", "W3.list", "W3.tree", "1 thread ", "2 : 1", "growth"]);
    assert!(!run.out.contains("W4") || run.out.contains("in W4"), "{}", run.out);
}

#[test]
fn scale_is_kept_in_a_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("scale.json");
    let args = "scale W2c W4 --objects 5k --threads 1 --rounds 2 --json";
    let run = run(format!("{args} {}", file.display()));
    run.assert_progress(&["round 2 of 2: W4, cleanups, 5,000 objects"]);
    let record = json(&file);
    let rows = ["W2c.50", "W4.register", "W4.run"];
    for (nth, row) in rows.into_iter().enumerate() {
        let cell = &record["rows"][nth];
        assert_eq!((&cell["id"], &cell["objects"]), (&row.into(), &5000.into()), "{record}");
        assert_eq!(cell["results"][0]["values"].as_array().unwrap().len(), 2, "{record}");
    }
    let command = "sexton-bench scale W2c W4 --objects 5k --threads 1 --rounds 2";
    assert_eq!(record["command"], command);
}

/// On a system that limits the addresses of a process as a shell's `ulimit -v` says.
#[cfg(target_os = "linux")]
#[test]
fn scale_skips_what_does_not_fit_into_memory_by_name() {
    let scale = |args: &str| {
        let line = format!("ulimit -v 3000000 && exec \"$0\" scale {args} --threads 1 --rounds 1");
        Run::of(&mut shell(&line, Path::new("")))
    };
    let some = scale("W2 --objects 10k,100M");
    some.assert_progress(&["round 1 of 1: W2, sweep, 10,000 objects"]);
    assert!(some.row("skipped: W2 at 100,000,000 objects:").contains(" GB"), "{}", some.out);
    some.assert_out(&[" 10,000 "]);
    scale("W2 --objects 100M").assert_usage(&["--objects", "W2 at 100,000,000", " GB"]);
}

#[test]
fn sweep_takes_every_corner_of_its_ranges() {
    for args in [
        "sweep --objects 1 --live 0 --cleanups 0 --rounds 1",
        "sweep --objects 1 --live 100 --cleanups 100 --rounds 1",
        "sweep --objects 70000 --live 100 --cleanups 0 --rounds 1",
        "sweep --objects 70000 --live 0 --cleanups 100 --rounds 1",
    ] {
        let run = run(args);
        run.assert_silent();
        run.assert_not_out(&["NaN", "inf"]);
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let top = tree();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    Run::of(command().arg("tour").arg(top.path()).stdout(writer)).assert_silent();
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error_of_one_line() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let top = tree();
    let run = Run::of(command().arg("tour").arg(top.path()).stdout(full));
    assert_eq!(run.code, Some(1));
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
}

/// `sexton-bench run`, with peers in other languages from a folder made for the test.
#[cfg(unix)]
mod measuring {
    use std::process::Stdio;

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// A folder with a peer for each of the scripts. Each is what `build.sh` makes. All tests build
    /// into one folder, so each has peers of other names.
    fn peers(scripts: &[(&str, &str)]) -> TempDir {
        let top = TempDir::new().expect("a temporary directory");
        for (name, program) in scripts {
            let folder = top.path().join(name);
            fs::create_dir(&folder).unwrap();
            let build = format!(
                "printf '%s\\n' '#!/bin/sh' '{program}' > \"$1/{name}\" && chmod +x \"$1/{name}\"\n"
            );
            fs::write(folder.join("build.sh"), build).unwrap();
        }
        top
    }

    /// A peer whose `build.sh` is this.
    fn peer_built_by(name: &str, build: &str) -> TempDir {
        let top = peers(&[]);
        fs::create_dir(top.path().join(name)).unwrap();
        fs::write(top.path().join(name).join("build.sh"), build).unwrap();
        top
    }

    fn path(folder: &TempDir, name: &str) -> String {
        folder.path().join(name).display().to_string()
    }

    fn command_with(folder: &Path, args: &str) -> Command {
        let mut command = command();
        command.arg("run").args(args.split(' ')).arg("--peers-dir").arg(folder);
        command
    }

    fn run_with(folder: &Path, args: &str) -> Run {
        Run::of(&mut command_with(folder, args))
    }

    #[test]
    fn peers_stand_beside_sexton_with_their_ratio() {
        let fake = "case $1 in --list) echo W5; echo W5.many;; *) echo W5 1000000; \
                    echo W5@two 2000000; echo W5.many 3000000;; esac";
        let folder = peers(&[("test-fake", fake)]);
        let run = run_with(folder.path(), "w5 --quick --rounds 1 --peers test-fake");
        run.assert_progress(&["building test-fake", "round 0 of 1: W5,", "round 1 of 1: W5, "]);
        let lines: Vec<&str> = run.out.lines().map(str::trim).collect();
        let line = |start: &str| lines.iter().position(|it| it.starts_with(start));
        assert!(["W5 ", "sexton ", "test-fake "].map(line).is_sorted(), "{}", run.out);
        run.assert_row("  test-fake@two", "2,000,000");
        run.assert_row("  test-fake ", "1,000,000  (1,000,000 to 1,000,000)");
        assert!(run.out.contains("WITHOUT optimisation") == cfg!(debug_assertions), "{}", run.out);
    }

    #[test]
    fn works_on_many_threads_tell_each_of_their_rows_once() {
        for (work, size, rows) in [
            ("S0", "1000", &["S0.session", "S0.session@local"]),
            ("S1", "6", &["S1.1", "S1.2"]),
            ("S2", "1000", &["S2.1", "S2.2"]),
            ("S3", "10000", &["S3.1", "S3.2"]),
            ("S4", "1000", &["S4.1", "S4.2"]),
            ("S5", "10000", &["S5.p99", "S5.max"]),
        ] {
            let run = super::run(format!("measure sexton {work} {size}"));
            run.assert_silent();
            let told = run.out.lines().map(|line| line.split(' ').next().unwrap());
            assert!(told.eq(rows.iter().copied()), "{work}: {}", run.out);
        }
    }

    #[test]
    fn a_write_has_a_price_in_every_state_of_the_heap() {
        let run = super::run("measure sexton barrier 10000");
        run.assert_silent();
        for cell in ["set", "borrow_mut", "lock"] {
            for state in ["", "@stop", "@marking", "@bare"] {
                run.assert_out(&[&format!("barrier.{cell}{state} ")]);
            }
        }
    }

    #[test]
    fn a_run_is_kept_in_a_file() {
        let folder = peers(&[]);
        let file = path(&folder, "run.json");
        let args = format!("W5 --quick --rounds 2 --peers none --json {file}");
        run_with(folder.path(), &args).assert_progress(&["round 2 of 2: W5, "]);
        let record = json(&file);
        let row = &record["rows"][0];
        assert_eq!((&row["id"], &row["results"][0]["by"]), (&"W5".into(), &"sexton".into()));
        let values = row["results"][0]["values"].as_array().unwrap();
        assert!(values.len() == 2 && values.iter().all(|it| it.as_f64().unwrap() > 0.0), "{row}");
        assert_eq!(record["partial"], false);
        assert_eq!(record["command"], "sexton-bench run W5 --quick --rounds 2 --peers none");
        assert_eq!(record["versions"][0]["peer"], "sexton", "{record}");
        for field in ["cpu", "cores", "memory_mib", "kernel", "rustc"] {
            assert!(!record["machine"][field].is_null(), "{record}");
        }
    }

    #[test]
    fn a_kept_run_is_drawn() {
        let folder = peers(&[]);
        let [json, svg] = ["run.json", "run.svg"].map(|it| path(&folder, it));
        let args = format!("W5 --quick --rounds 1 --peers none --json {json}");
        assert_eq!(run_with(folder.path(), &args).code, Some(0));
        let drawn = run(format!("plot {json}"));
        drawn.assert_silent();
        assert_eq!(drawn.out.trim_end(), svg);
        assert_has(&fs::read_to_string(&svg).unwrap(), &["<svg", "W5.many"]);
        run(format!("plot {json} w5 --peers 2")).assert_silent();

        for (args, words) in [
            (" W9", ["W9", "[possible values: W1, W2, W2c"]),
            (" W3", ["nothing of W3", "a work that was measured"]),
            (" --peers 0", ["--peers", "1..=1000"]),
            (" --best W5", ["--best", "cannot be used with"]),
            (" --output /no/such/folder/it.svg", ["/no/such/folder/it.svg", "a file to write"]),
            (" --output it.png", ["it.png", "a name that ends in .svg"]),
            ("/no/such/file", ["/no/such/file", "run --json FILE"]),
        ] {
            run(format!("plot {json}{args}")).assert_usage(&words);
        }
        run(format!("plot {svg}")).assert_usage(&["run.svg", "run --json FILE"]);
    }

    /// The six rows of the small picture: a peer is asked for those and for no others, and what it
    /// tells besides is left out. The run is broken off when all that has been seen.
    #[test]
    fn a_run_of_the_best_known_rows_has_these_and_no_others() {
        let folder = TempDir::new().unwrap();
        let [json, pid, svg] = ["best.json", "pid", "best.svg"].map(|it| path(&folder, it));
        let fake = format!(
            "case $1 in --list) echo W1; echo W1@two; echo W2.50; echo W5;; --version) ;; W1) \
             echo W1 7; echo W1@two 8; echo W5 9;; *) {};; esac",
            sleep_and_tell(&pid)
        );
        let peers = peers(&[("test-best", &fake)]);
        let args = format!("--best --quick --peers test-best --json {json}");
        let (run, _) = run_and_signal(&args, peers.path(), &pid, Signal::INT);
        assert_eq!(run.code, Some(130), "{}", run.err);
        let record = super::json(&json);
        let rows: Vec<_> =
            record["rows"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert_eq!(rows, ["W1", "W2.50", "W3.random", "W4.run", "W7.wall", "S5.max"]);
        let by = |row: usize| {
            let results = record["rows"][row]["results"].as_array().unwrap();
            results.iter().map(|it| it["by"].as_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!((by(0), by(2)), (vec!["sexton", "test-best"], vec!["sexton"]));
        super::run(format!("plot --best {json}")).assert_silent();
        assert_has(&fs::read_to_string(&svg).unwrap(), &["Sweep, half", "test-best"]);
    }

    /// A line of shell that tells the number of a process, which sleeps, and waits for it.
    fn sleep_and_tell(pid: &str) -> String {
        format!("sleep 1000 & echo $! > {pid}.new; mv {pid}.new {pid}; wait")
    }

    /// Starts a run, waits until a peer sleeps, and sends the run a signal. Also gives the sleeper.
    fn run_and_signal(args: &str, peers: &Path, pid: &str, signal: Signal) -> (Run, Pid) {
        let mut command = command_with(peers, args);
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let sleeper = loop {
            match fs::read_to_string(pid) {
                Ok(text) => break Pid::from_raw(text.trim().parse().unwrap()).unwrap(),
                Err(_) => std::thread::yield_now(),
            }
        };
        fs::remove_file(pid).unwrap();
        kill_process(Pid::from_child(&run), signal).unwrap();
        (Run::from(run.wait_with_output().unwrap()), sleeper)
    }

    #[test]
    fn kept_runs_become_tables_in_markdown() {
        let fake =
            "case $1 in --list) echo W5;; --version) echo fake 1.2;; *) echo W5 1000000;; esac";
        let folder = peers(&[("test-kept", fake)]);
        let [one, two] = ["run.json", "scale.json"].map(|it| path(&folder, it));
        let args = format!("W5 limits --quick --rounds 1 --peers test-kept --json {one}");
        assert_eq!(run_with(folder.path(), &args).code, Some(0));
        let table = run(format!("table {one}"));
        table.assert_silent();
        table.assert_out(&[
            "`sexton-bench run W5 limits --quick --rounds 1 --peers test-kept`",
            "test-kept is fake 1.2",
            "| row | what | unit | Sexton | goal | met |",
            "| W5 | register and stop a cleanup, one object | ns per cleanup | ",
            "| 15.0 | ",
            "| test-kept 1,000,000 (",
            "| limit.load | ",
        ]);
        table.assert_not_out(&["/tmp"]);

        let args = "scale W2 --objects 1k,2k --threads 1,2 --rounds 1 --json";
        assert_eq!(run(format!("{args} {two}")).code, Some(0));
        let table = run(format!("table {two}"));
        table.assert_silent();
        table.assert_out(&["| | objects | 1 thread | 2 threads | 2 : 1 |"]);

        run("table /no/such/file").assert_usage(&["/no/such/file", "run --json FILE"]);
        let other = path(&folder, "test-kept/build.sh");
        run(format!("table {other}")).assert_usage(&["build.sh", "scale --json FILE"]);
        let words = ["a record of `scale`", "`sexton-bench table", "run --json"];
        run(format!("plot {two}")).assert_usage(&words);
    }

    #[test]
    fn pauses_are_a_table_and_a_picture() {
        let folder = TempDir::new().unwrap();
        let file = path(&folder, "pauses.json");
        let args = "pauses random locals --ways local-stop,shared,local --peers none --quick";
        let measured = run(format!("{args} --markdown --json {file}"));
        measured.assert_progress(&["round 1 of 1: random, ", "round 1 of 1: locals, "]);
        let table = run(format!("table {file}"));
        table.assert_silent();
        assert_eq!(measured.out, table.out);
        let numbers = |title: &str| {
            let lines = table.out.lines().filter(|line| line.starts_with(title));
            let cells = lines.flat_map(|line| line.trim_matches('|').split('|').skip(1));
            cells.filter(|cell| cell.trim().parse::<f64>().is_ok()).count()
        };
        // Only a heap of one thread has local cleanups. Thousands have commas.
        assert!(numbers("| Local, slices of 1 ms") > 12, "{}", table.out);
        assert!((6..=10).contains(&numbers("| Shared, beside")), "{}", table.out);
        // Stop-the-world is what the others are compared with.
        table.assert_out(&["| 10 | 1.00 | 1.00 | 1.00 |"]);

        let args = format!("plot {file}");
        let drawn = run(&args);
        drawn.assert_silent();
        let picture = fs::read_to_string(path(&folder, "pauses.svg")).unwrap();
        assert_has(&picture, &["Local, stop-the-world", "Shared, beside sessions", "<circle"]);
        run(format!("{args} W1")).assert_usage(&["a record of `pauses`", "--output"]);
        run(format!("{args} --best")).assert_usage(&["a record of `pauses`"]);
    }

    #[test]
    fn a_peer_that_fails_costs_its_own_cell() {
        let list = "[ $1 = --list ] && echo W5 && exit";
        let folder = peers(&[
            ("test-crash", &format!("{list}; echo it broke >&2; exit 1")),
            ("test-talk", &format!("{list}; echo hello world")),
            ("test-mute", &format!("{list}; exit 0")),
        ]);
        let run =
            run_with(folder.path(), "W5 --quick --rounds 1 --peers test-crash,test-talk,test-mute");
        run.assert_progress(&[]);
        for (name, reason) in [
            ("test-crash", "it broke"),
            ("test-talk", "printed no row and value"),
            ("test-mute", "printed nothing for W5"),
        ] {
            let cells = run.row(&format!("  {name}"));
            assert!(cells.starts_with("failed") && cells.contains(reason), "{}", run.out);
        }
    }

    /// All peers of a folder: those in Rust are left out unless this build has them.
    #[cfg(feature = "peers")]
    #[test]
    fn absent_peers_are_skipped_by_name() {
        let build = "echo test-tool is not installed >&2; exit 3\n";
        let folder = peer_built_by("test-absent", build);
        let run = run_with(folder.path(), "W6 --quick --rounds 1 --peers all");
        run.assert_progress(&["building test-absent"]);
        assert_eq!(run.row("skipped: test-absent:"), "test-tool is not installed");

        let run = run_with(Path::new("/no/such/folder"), "W6 --quick --rounds 1");
        run.assert_progress(&[]);
        assert!(run.row("skipped: others:").contains("cannot be listed"), "{}", run.out);
    }

    #[cfg(not(feature = "peers"))]
    #[test]
    fn a_build_without_the_peers_in_rust_says_how_to_have_them() {
        let command = "cargo run --release --features peers -- run";
        let folder = peers(&[("test-fake", "echo W5")]);
        run_with(folder.path(), "W6 --quick").assert_usage(&[
            "not built in",
            command,
            "--peers none",
        ]);
        run_with(folder.path(), "W6 --quick --peers gc-arena").assert_usage(&["gc-arena", command]);
    }

    #[test]
    fn an_absent_peer_that_was_named_is_an_error() {
        let folder = peer_built_by("test-absent", "echo test-tool is not installed >&2; exit 3\n");
        let run = run_with(folder.path(), "W6 --quick --peers test-absent");
        assert_eq!(run.code, Some(2));
        let last = run.err.lines().last().unwrap();
        assert!(last.contains("test-absent") && last.contains("not installed"), "{}", run.err);
    }

    /// A peer that is measured when the command is told to end: what was measured before is kept
    /// and drawn, the rest has not failed, and the peer ends with whatever it has started.
    #[test]
    fn a_run_that_a_signal_ends_keeps_what_it_has_and_ends_its_children() {
        let folder = TempDir::new().unwrap();
        let [json, pid, svg] = ["run.json", "pid", "run.svg"].map(|it| path(&folder, it));
        let sleep = sleep_and_tell(&pid);
        let slow = format!("case $1 in --list) echo W5;; --version) ;; *) {sleep};; esac");
        let peers = peers(&[("test-slow", &slow)]);
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let args = format!("W5 W4 --quick --peers test-slow --json {json}");
            let (run, sleeper) = run_and_signal(&args, peers.path(), &pid, signal);
            assert_eq!(run.code, Some(code), "{}", run.err);
            assert!(run.err.lines().last().unwrap().contains("interrupted"), "{}", run.err);
            run.assert_out(&["PARTIAL"]);
            assert_eq!(run.row("  test-slow"), "not measured");
            run.assert_not_out(&["failed"]);
            assert!(is_gone(sleeper), "the peer has left a process behind");

            assert_eq!(super::json(&json)["partial"], true);
            super::run(format!("plot {json}")).assert_silent();
            let picture = fs::read_to_string(&svg).unwrap();
            assert_has(&picture, &["partial", "W4.run"]);
            assert!(!picture.contains("failed"), "{picture}");
            let table = super::run(format!("table {json}"));
            table.assert_out(&["PARTIAL"]);
            table.assert_not_out(&["failed"]);
        }
    }

    /// Whether a process has ended, or is about to: one that is not waited for stays a zombie.
    fn is_gone(process: Pid) -> bool {
        let path = format!("/proc/{}/stat", process.as_raw_nonzero());
        (0..1000).any(|_| {
            std::thread::yield_now();
            fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z "))
        })
    }

    #[test]
    fn unknown_works_peers_and_files_are_errors_of_one_line() {
        let folder = peers(&[("test-fake", "echo W5")]);
        let run = |args| run_with(folder.path(), args);
        run("W9").assert_usage(&["W9", "[possible values: W1, W2, W2c"]);
        run("W5 --peers test-fake,nobody").assert_usage(&["nobody", "box", "test-fake"]);
        run("W5 --json /no/such/folder/file").assert_usage(&["--json", "/no/such/folder/file"]);
        run("W5 --rounds many").assert_usage(&["--rounds", "many"]);
    }
}

#[cfg(unix)]
mod unix {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_cannot_be_used_is_skipped_by_name() {
        let top = tree();
        symlink("nowhere", top.path().join("dangling")).unwrap();
        symlink("self", top.path().join("self")).unwrap();
        let _listener = UnixListener::bind(top.path().join("socket")).unwrap();
        let made = Command::new("mkfifo").arg(top.path().join("a/pipe")).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo makes a pipe");

        let run = tour(top.path());
        run.assert_complete();
        for (name, why) in [
            ("dangling", "a link to nothing"),
            ("self", "a link that leads nowhere"),
            ("socket", "a socket, which is never opened"),
            ("a/pipe", "a named pipe, which is never opened"),
        ] {
            let line = run.err.lines().find(|line| line.contains(&format!("{name}\"")));
            assert!(line.is_some_and(|line| line.contains(why)), "{name}: {}", run.err);
        }
        assert_eq!(run.err.lines().count(), 4, "{}", run.err);
        run.assert_row("index", "3 directories, 4 files, 0 links; 4 skipped");
    }

    #[test]
    fn many_skipped_names_are_counted() {
        let top = TempDir::new().unwrap();
        (0..25).for_each(|n| symlink("nowhere", top.path().join(n.to_string())).unwrap());
        let run = tour(top.path());
        run.assert_complete();
        assert_eq!(run.err.lines().count(), 11, "{}", run.err);
        assert!(run.err.ends_with("... and 15 more\n"), "{}", run.err);
    }

    #[test]
    fn links_that_lead_back_up_are_not_followed() {
        let top = tree();
        symlink("../..", top.path().join("a/b/up")).unwrap();
        symlink("one", top.path().join("file")).unwrap();
        let run = tour(top.path());
        run.assert_complete();
        run.assert_row("index", "3 directories, 4 files, 2 links; 0 skipped");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_current_directory_that_was_removed_is_an_error_of_one_line() {
        let top = TempDir::new().unwrap();
        let mut tour = shell("rmdir \"$PWD\" && exec \"$0\" tour", Path::new(""));
        Run::of(tour.current_dir(top.path())).assert_usage(&["\".\"", "removed"]);
    }

    #[test]
    fn a_path_may_be_a_link_to_a_directory() {
        let top = tree();
        symlink("a", top.path().join("link")).unwrap();
        let run = tour(&top.path().join("link"));
        run.assert_complete();
        run.assert_row("index", "2 directories, 3 files, 0 links");
    }

    // Some systems' file systems refuse such names.
    #[cfg(target_os = "linux")]
    #[test]
    fn names_need_not_be_unicode() {
        let top = tree();
        fs::write(top.path().join(OsStr::from_bytes(b"b\xffd")), "12").unwrap();
        symlink("nowhere", top.path().join(OsStr::from_bytes(b"l\xfe\nk"))).unwrap();
        let run = tour(top.path());
        run.assert_complete();
        run.assert_row("index", "3 directories, 5 files, 0 links; 1 skipped");
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
        assert!(run.err.contains(r"l\xFE\nk"), "{}", run.err);
    }

    #[test]
    fn a_deep_tree_is_no_deep_recursion() {
        let top = TempDir::new().unwrap();
        let deepest: OsString = "d/".repeat(1500).into();
        fs::create_dir_all(top.path().join(&deepest)).unwrap();
        let run = tour(top.path());
        run.assert_complete();
        run.assert_row("index", "1,501 directories, 0 files");
    }

    #[test]
    fn few_descriptors_are_enough() {
        let top = tree();
        (0..300).for_each(|n| fs::write(top.path().join(n.to_string()), "x").unwrap());
        // Next to standard input, output and error, room for some; then for a single one, which is
        // less than the cache counts on.
        for limit in [64, 12, 4] {
            let line = format!(
                "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; ulimit -n {limit} && \
                 exec \"$0\" tour \"$1\""
            );
            let run = Run::of(&mut shell(&line, top.path()));
            run.assert_silent();
            run.assert_row("index", "3 directories, 304 files, 0 links; 0 skipped");
            let (counts, _) = run.row("open files").split_once(" open at most").unwrap();
            let most: u64 = counts.rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!(most <= limit / 2, "{most} open of {limit}");
        }
    }

    #[test]
    fn files_may_vanish_under_the_tour() {
        let top = TempDir::new().unwrap();
        let refill = |round: u32| {
            for n in 0..200 {
                let _ = fs::write(top.path().join(format!("{round}-{n}")), "x");
            }
        };
        refill(0);
        thread::scope(|scope| {
            let tours = scope.spawn(|| (0..20).map(|_| tour(top.path())).collect::<Vec<_>>());
            let start = Instant::now();
            let mut round = 0;
            while !tours.is_finished() && start.elapsed() < Duration::from_secs(30) {
                (0..200)
                    .for_each(|n| drop(fs::remove_file(top.path().join(format!("{round}-{n}")))));
                round += 1;
                refill(round);
            }
            tours.join().unwrap().iter().for_each(Run::assert_complete);
        });
    }
}
