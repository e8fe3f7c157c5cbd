//! Alertmanager's fingerprint of an alert: a hash of its labels.

/// The fingerprint of labels that are sorted by name: 16 hex digits of FNV-1a over names and values, each
/// followed by the byte 255. The algorithm is that of `prometheus/common`.
pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    const OFFSET: u64 = 14_695_981_039_346_656_037;
    const PRIME: u64 = 1_099_511_628_211;
    let mut hash = OFFSET;
    let mut add = |text: &str| {
        for byte in text.bytes().chain([0xFF]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    };
    for (name, value) in labels {
        add(name);
        add(value);
    }
    format!("{hash:016x}")
}
