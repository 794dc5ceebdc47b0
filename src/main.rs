//! Arguments → subcommand, runtime, exit code.

use std::{io::Write, process::ExitCode};

use forebay::{
    app::{self, AppError, Given},
    cli::{self, Command, Exit},
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
        Err(error) => {
            // A configuration's problems stand a line each, by key, so that scripts can read them.
            let text = match &error {
                AppError::Config(problems) => format!("{}\n", problems.trim_end()),
                other => format!("forebay: {other}\n"),
            };
            say(&text, error.exit());
            error.exit().into()
        }
    }
}

fn run(command: Command) -> Result<(), AppError> {
    // Before there are threads: it reads and changes the environment.
    let given = match &command {
        Command::Serve(_) => Given::take()?,
        _ => Given::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ran = match command {
        Command::Check(file) => app::check(&file.config),
        Command::Serve(file) => runtime.block_on(app::serve(&file.config, given)),
        Command::Demo(options) => runtime.block_on(app::run_demo(options)),
        Command::DemoNode(options) => runtime.block_on(app::run_demo_node(options)),
    };
    // What a library still does in the background shall not hold the process.
    runtime.shutdown_background();
    ran
}

fn say(text: &str, exit: Exit) {
    // Nobody may be listening; the exit code says it too.
    let _ = match exit {
        Exit::Ok => std::io::stdout().write_all(text.as_bytes()),
        _ => std::io::stderr().write_all(text.as_bytes()),
    };
}
