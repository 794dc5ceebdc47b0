//! The admin API over TLS, for callers with certificates only.

use crate::support::{
    cluster::{Door, eventually},
    front::{Identity, authority, files, put},
    mongod::TempDir,
    process::run,
};

const NODES: &str = "[[nodes.static]]\nname = \"o1\"\naddress = \"127.0.0.1:9\"\nrole = \"origin\"\n\
                     [[nodes.static]]\nname = \"o2\"\naddress = \"127.0.0.2:9\"\nrole = \"origin\"\n";

/// Runs a command with a certificate, or without; the server is known by `ca`.
async fn forebay(door: &Door, dir: &TempDir, arguments: &str, ca: &str, own: Option<&str>) -> (Option<i32>, String) {
    let file = |name: &str| dir.path().join(name).display().to_string();
    let mut words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    words.extend(["--admin".to_owned(), door.ready["admin"].clone(), "--ca".to_owned(), file(ca)]);
    if let Some(own) = own {
        words.extend([
            "--cert".to_owned(),
            file(&format!("{own}.pem")),
            "--key".to_owned(),
            file(&format!("{own}.key")),
        ]);
    }
    let (code, stdout, stderr) = run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    (code, stdout + &stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_callers_with_a_certificate_of_the_operators_authority_are_let_in_and_are_named_in_the_audit_log() {
    let dir = TempDir::new("mutual-tls");
    let (ours, issuer) = authority("operators");
    let (theirs, stranger) = authority("strangers");
    for (name, pem) in [("ours", &ours), ("servers", &ours), ("theirs", &theirs)] {
        put(&dir.path().join(name), pem);
    }
    Identity::issued("door", &["127.0.0.1"], &issuer).write(dir.path(), "door");
    Identity::issued("night shift", &[], &issuer).write(dir.path(), "night");
    Identity::issued("night shift", &[], &stranger).write(dir.path(), "stranger");
    let [cert, key] = files(dir.path(), "door").map(|file| file.display().to_string());
    let client_ca = dir.path().join("ours").display().to_string();
    let door = Door::serve(
        NODES,
        &[
            ("FOREBAY_ADMIN__TLS_CERT", &cert),
            ("FOREBAY_ADMIN__TLS_KEY", &key),
            ("FOREBAY_ADMIN__CLIENT_CA", &client_ca),
        ],
    )
    .await;
    assert!(door.ready["admin"].starts_with("https://127.0.0.1:"), "{}", door.ready["admin"]);

    let (code, said) = forebay(&door, &dir, "status", "ours", Some("night")).await;
    assert!(code == Some(0) && said.contains("o1"), "{said}");
    let (code, said) = forebay(&door, &dir, "drain o1", "ours", Some("night")).await;
    assert_eq!(code, Some(0), "{said}");
    let audit = door.logged(&["forebay::audit"]).await;
    assert!(audit.contains("night shift") && audit.contains("o1"), "{audit}");

    for (ca, own, why) in [
        ("ours", None, "ertificate"),
        ("ours", Some("stranger"), "UnknownC"),
        ("theirs", Some("night"), "UnknownIssuer"),
    ] {
        let (code, said) = forebay(&door, &dir, "status", ca, own).await;
        assert!(code == Some(69) && said.contains(why), "{ca} {own:?}: {said}");
    }
    let (code, said) = forebay(&door, &dir, "status", "absent", None).await;
    assert!(code == Some(64) && said.contains("absent"), "{said}");

    // Another authority, then a file that is none: the last one that could be used stays.
    put(&dir.path().join("ours"), &theirs);
    eventually("the strangers are let in", async || {
        let (code, _) = forebay(&door, &dir, "status", "servers", Some("stranger")).await;
        code == Some(0)
    })
    .await;
    put(&dir.path().join("ours"), "nothing");
    door.logged(&["the old ones stay"]).await;
    let (code, said) = forebay(&door, &dir, "status", "servers", Some("stranger")).await;
    assert_eq!(code, Some(0), "{said}");
}
