//! The certificate that the gateway makes itself, and what clients of several makers say to it: OpenSSL, Node and Python
//! (which use that), and Bun, whose TLS is BoringSSL.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::world::World;

/// Prints the status of an answer, or why there is none.
const FETCH: &str = "fetch(process.argv.at(-1)).then(r => console.log('status', r.status), \
                     e => console.log('failed', e.cause?.message ?? e.message))";
/// The same in Python, as strict as OpenSSL can be.
const PYTHON: &str = "import ssl, sys, urllib.request, urllib.error
context = ssl.create_default_context(cafile=sys.argv[1])
context.verify_flags |= ssl.VERIFY_X509_STRICT
try:
    urllib.request.urlopen(sys.argv[2], context=context)
except urllib.error.HTTPError as error:
    print('status', error.code)
";

fn own(world: &World) -> PathBuf {
    world.data_dir().join("tls/cert.pem")
}

fn said(command: &mut Command) -> String {
    let ran = command.output().unwrap();
    let text = [ran.stdout, ran.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// What a client on Node or Bun that trusts this certificate says to the address.
fn fetched(program: &Path, cert: &Path, url: &str) -> String {
    said(
        Command::new(program)
            .args(["-e", FETCH, url])
            .env("NODE_EXTRA_CA_CERTS", cert),
    )
}

fn extensions(openssl: &Path, cert: &Path) -> String {
    said(
        Command::new(openssl)
            .args(["x509", "-noout", "-text", "-in"])
            .arg(cert),
    )
}

/// One as the gateway made it before: it says what its key is for.
fn of_the_old_kind(key_pem: &str) -> String {
    let key = rcgen::KeyPair::from_pem(key_pem).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Legation, self-signed");
    params.self_signed(&key).unwrap().pem()
}

#[test]
fn openssl_takes_the_certificate_it_is_given() {
    let (Some(openssl), Some(curl)) = (tools::on_path("openssl"), tools::on_path("curl")) else {
        return tools::skip("the own certificate by OpenSSL", "needs openssl and curl");
    };
    let world = World::with_client("tls = \"self\"\n", "");
    let cert = own(&world);
    for strict in [&[][..], &["-x509_strict"]] {
        let mut verify = Command::new(&openssl);
        verify.arg("verify").args(strict).arg("-CAfile");
        let told = said(verify.arg(&cert).arg(&cert));
        assert!(told.ends_with(": OK\n"), "{strict:?}: {told}");
    }
    let text = extensions(&openssl, &cert);
    assert!(
        text.contains("DNS:localhost") && text.contains("TLS Web Server Authentication"),
        "{text}"
    );
    assert!(!text.contains("X509v3 Key Usage"), "{text}");
    let mut curl = Command::new(&curl);
    curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]);
    assert_eq!(said(curl.arg(&cert).arg(&world.url)), "404");
}

#[test]
fn python_takes_it_strictly() {
    let Some(python) = tools::on_path("python3") else {
        return tools::skip("the own certificate by Python", "no python3 on PATH");
    };
    let world = World::with_client("tls = \"self\"\n", "");
    let mut python = Command::new(&python);
    python.args(["-c", PYTHON]).arg(own(&world)).arg(&world.url);
    assert_eq!(said(&mut python), "status 404\n");
}

#[test]
fn node_and_bun_take_it_and_bun_refuses_the_old_kind() {
    let world = World::with_client("tls = \"self\"\n", "");
    let programs = [tools::on_path("node"), tools::bun()];
    for program in programs.iter().flatten() {
        let told = fetched(program, &own(&world), &world.url);
        assert_eq!(told, "status 404\n", "{}", program.display());
    }
    // The control: what is told to Bun tells it from others.
    let Some(bun) = &programs[1] else { return };
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let pair = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&key, &pair).unwrap();
    std::fs::write(&cert, of_the_old_kind(&pair)).unwrap();
    let old = World::with_client(
        &format!(
            "tls = \"files\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
            cert.display(),
            key.display()
        ),
        "",
    );
    let told = fetched(bun, &cert, &old.url);
    assert!(told.contains("unable to verify"), "{told}");
}

#[test]
fn one_of_the_old_kind_is_made_again_at_the_start_with_its_key() {
    let Some(openssl) = tools::on_path("openssl") else {
        return tools::skip("the old kind of certificate", "no openssl on PATH");
    };
    let mut world = World::with_client("tls = \"self\"\n", "");
    world.stop();
    let (cert, key) = (own(&world), own(&world).with_file_name("key.pem"));
    let pair = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&cert, of_the_old_kind(&pair)).unwrap();
    assert!(extensions(&openssl, &cert).contains("X509v3 Key Usage"));
    world.start();
    assert!(!extensions(&openssl, &cert).contains("X509v3 Key Usage"));
    assert_eq!(std::fs::read_to_string(&key).unwrap(), pair);
    assert!(world.log().contains("BoringSSL"), "{}", world.log());
    let made = std::fs::read(&cert).unwrap();
    world.stop();
    world.start();
    assert_eq!(std::fs::read(&cert).unwrap(), made, "and only once");
}

#[test]
fn plain_http_to_the_tls_port_is_told_what_is_wrong() {
    let Some(curl) = tools::on_path("curl") else {
        return tools::skip("plain HTTP to the TLS port", "no curl on PATH");
    };
    let world = World::with_client("tls = \"self\"\n", "");
    let plain = world.url.replace("https://", "http://");
    // More than a request of its own kind: the answer must not be lost by a reset.
    let body = dir_with_body();
    let upload = format!("@{}", body.path().join("body").display());
    for more in [&[][..], &["-H", "Expect:", "--data-binary", &upload]] {
        let mut ask = Command::new(&curl);
        ask.args(["-sS", "-w", " %{http_code}"]).args(more);
        let told = said(ask.arg(format!("{plain}/mcp")));
        assert!(
            told.contains("use https://") && told.ends_with(" 400"),
            "{told}"
        );
    }
}

fn dir_with_body() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("body"), vec![b'x'; 12 << 10]).unwrap();
    dir
}
