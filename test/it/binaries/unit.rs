//! `2ptth-client service`: the unit that it writes, as systemd reads it.

use std::fs;

use ptth_link::token::Token;
use ptth_test::Folder;
use ptth_test::process::{Output, binary, run};

/// Runs `2ptth-client service` with these arguments, at home in `folder`, and with a token that is the shell's alone.
async fn service(folder: &Folder, arguments: &[&str]) -> Output {
    let home = folder.path("").display().to_string();
    let secret = Token::generate().reveal();
    let variables = [("HOME", home.as_str()), ("TOKEN", &secret)];
    let output = run("2ptth-client", &[&["service"], arguments].concat(), &variables).await;
    assert!(!format!("{output:?}").contains(&secret), "{output:?}");
    output
}

#[tokio::test]
async fn the_client_writes_a_unit_of_its_user() {
    let folder = Folder::new();
    let unit = folder.path(".config/systemd/user/2ptth-client.service");
    fs::create_dir_all(folder.path(".config/2ptth")).unwrap();
    let missing = service(&folder, &["install"]).await;
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains(".config/2ptth/client.toml"), "{missing:?}");
    folder.write(".config/2ptth/token", Token::generate().reveal());
    let config = folder.path(".config/2ptth/client.toml");
    fs::write(&config, "gateway = 'gateway.test'\norigin = '8080'\ntoken_file = 'tokens'\n")
        .unwrap();
    let wrong = service(&folder, &["install"]).await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("client.toml:3:"), "{wrong:?}");
    assert!(!unit.exists(), "what can't run isn't installed");
    fs::write(&config, "gateway = 'gateway.test'\norigin = '8080'\ntoken_file = 'token'\n")
        .unwrap();
    let installed = service(&folder, &["install"]).await;
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert!(installed.stdout.contains(&unit.display().to_string()), "{installed:?}");
    let text = fs::read_to_string(&unit).unwrap();
    let (program, file) = (binary("2ptth-client"), config.display());
    let line = format!("\nExecStart=\"{}\" --config \"{file}\"\n", program.display());
    assert!(text.contains(&line), "{line} isn't in:\n{text}");
    let printed = service(&folder, &["print", "--config", &config.display().to_string()]).await;
    assert_eq!((printed.code, printed.stdout.trim_end()), (Some(0), text.trim_end()));
    // Where there is systemd, it has nothing to say against the unit.
    let mut verify = std::process::Command::new("systemd-analyze");
    verify.args(["verify", "--user"]).arg(&unit).env("XDG_RUNTIME_DIR", folder.path(""));
    if let Ok(said) = verify.output() {
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.contains("2ptth"), "{said}");
    }
}
