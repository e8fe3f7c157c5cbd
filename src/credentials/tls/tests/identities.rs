//! The names of verified certificates.

use rcgen::{CustomExtension, DnType};

use super::*;
use crate::credentials::San;
use crate::credentials::tls::identity::client_certificate;

const SUBJECT_ALTERNATIVE_NAME: [u64; 4] = [2, 5, 29, 17];

fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_verified_certificate_has_its_common_name_and_all_its_sans() {
    let files = ListenerFiles::new();
    let sans = [
        "Alertmanager.Monitoring.SVC",
        "10.1.2.3",
        "2001:db8::1",
        "::ffff:10.9.9.9",
        "spiffe://example/ns/Monitoring",
        "Ops@example",
    ];
    let client = files.client(Some(&files.clients.client("Prometheus (EU)", &sans)));
    let tls = files.load(ClientAuth::VerifyClientCertIfGiven(files.path("clients.pem")));
    let certificate = connect(&tls, &Arc::new(client)).await.unwrap().certificate.unwrap();
    assert_eq!(certificate.common_name.as_deref(), Some("Prometheus (EU)"));
    let expected = [
        San::Dns("alertmanager.monitoring.svc".to_owned()),
        San::Ip("10.1.2.3".parse().unwrap()),
        San::Ip("2001:db8::1".parse().unwrap()),
        San::Ip("10.9.9.9".parse().unwrap()),
        San::Uri("spiffe://example/ns/Monitoring".to_owned()),
        San::Email("Ops@example".to_owned()),
    ];
    assert_eq!(certificate.sans, expected);
}

#[test]
fn of_two_common_names_none_counts() {
    let authority = Authority::new("client CA");
    let two = authority.issue("first", &[], |params| {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "second");
    });
    let identity = client_certificate(&der(&two)).unwrap();
    assert_eq!((identity.common_name, identity.sans), (None, Vec::new()));
    let none = authority.issue("first", &["a.example"], |params| {
        params.distinguished_name.remove(DnType::CommonName);
    });
    let identity = client_certificate(&der(&none)).unwrap();
    assert_eq!((identity.common_name, identity.sans), (None, vec![San::Dns("a.example".to_owned())]));
    let old = client_certificate(&der(&authority.expired_client("old", &[]))).unwrap();
    assert_eq!(old.not_after, 1_577_836_800);
}

#[test]
fn a_certificate_that_cannot_be_parsed_is_no_identity() {
    let authority = Authority::new("client CA");
    let valid = der(&authority.client("client", &["a.example"]));
    assert!(client_certificate(&valid).is_some());
    assert_eq!(client_certificate(b""), None);
    assert_eq!(client_certificate(&valid[..valid.len() - 1]), None);
    assert_eq!(client_certificate(&[&*valid, b"0"].concat()), None);
    let with_names = |sans: &[&str], content: &[u8]| {
        let names = CustomExtension::from_oid_content(&SUBJECT_ALTERNATIVE_NAME, content.to_vec());
        der(&authority.issue("client", sans, |params| params.custom_extensions.push(names)))
    };
    let dns_name = [0x30, 3, 0x82, 1, b'b'];
    assert_eq!(client_certificate(&with_names(&[], &dns_name)).unwrap().sans, [San::Dns("b".to_owned())]);
    // Two lists of names, an address of five bytes, a name that is not UTF-8, a list that ends early.
    assert_eq!(client_certificate(&with_names(&["a.example"], &dns_name)), None);
    assert_eq!(client_certificate(&with_names(&[], &[0x30, 7, 0x87, 5, 1, 2, 3, 4, 5])), None);
    assert_eq!(client_certificate(&with_names(&[], &[0x30, 3, 0x82, 1, 0xff])), None);
    assert_eq!(client_certificate(&with_names(&[], &[0x30, 9, 0x82, 1, b'b'])), None);
}
