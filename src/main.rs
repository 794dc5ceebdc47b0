//! Arguments → subcommand, runtime, exit code.

use std::{io::Write, process::ExitCode};

use forebay::{
    app::{self, AppError, Given},
    cli::{self, Command, Exit, Failure, Stop, operate},
};

fn main() -> ExitCode {
    // One provider for rustls, MongoDB and WebRTC, before any of them asks for it; a second install is impossible here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(stop) => {
            say(&stop.text, stop.exit);
            return stop.exit.into();
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            say(&stop.text, stop.exit);
            stop.exit.into()
        }
    }
}

fn run(command: Command) -> Result<(), Stop> {
    // Before there are threads: it reads and changes the environment.
    let given = match &command {
        Command::Serve(_) => Given::take().map_err(failed)?,
        _ => Given::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|why| failed(why.into()))?;
    let ran = match command {
        Command::Check(file) => app::check(&file.config).map_err(failed),
        Command::Serve(file) => runtime.block_on(app::serve(&file.config, given)).map_err(failed),
        Command::Demo(options) => runtime.block_on(app::run_demo(options)).map_err(failed),
        Command::DemoNode(options) => runtime.block_on(app::run_demo_node(options)).map_err(failed),
        Command::Status(options) => runtime.block_on(operate::status(options)).map_err(refused),
        Command::Drain(options) => runtime.block_on(operate::drain(options)).map_err(refused),
        Command::Undrain(options) => runtime.block_on(operate::undrain(options)).map_err(refused),
    };
    // What a library still does in the background shall not hold the process.
    runtime.shutdown_background();
    ran
}

/// A configuration's problems stand a line each, by key, so that scripts can read them.
fn failed(error: AppError) -> Stop {
    let text = match &error {
        AppError::Config(problems) => format!("{}\n", problems.trim_end()),
        other => format!("forebay: {other}\n"),
    };
    Stop { text, exit: error.exit() }
}

fn refused(failure: Failure) -> Stop {
    Stop { text: format!("forebay: {}\n", failure.text), exit: failure.exit }
}

fn say(text: &str, exit: Exit) {
    // Nobody may be listening; the exit code says it too.
    let _ = match exit {
        Exit::Ok => std::io::stdout().write_all(text.as_bytes()),
        _ => std::io::stderr().write_all(text.as_bytes()),
    };
}
