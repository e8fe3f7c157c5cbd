//! The region of a queue, from its URL.

/// `None`: the URL does not tell, for example of an emulator.
pub fn region_of(queue_url: &str) -> Option<&str> {
    let host = queue_url.split_once("://")?.1.split(['/', ':', '?']).next()?;
    let is_aws = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"]
        .iter()
        .any(|suffix| host.ends_with(suffix));
    if !is_aws {
        return None;
    }
    let parts: Vec<&str> = host.split('.').collect();
    let after = |name: &str| parts.iter().position(|part| *part == name).map(|at| parts[at + 1]);
    // `eu-west-1.queue.amazonaws.com` is the older form.
    let before_queue = || match parts[..] {
        ["queue", ..] => Some("us-east-1"),
        [region, "queue", ..] => Some(region),
        _ => None,
    };
    after("sqs").or_else(|| after("sqs-fips")).or_else(before_queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_names_the_region() {
        for (url, region) in [
            ("https://sqs.eu-west-1.amazonaws.com/111122223333/scaling.fifo", Some("eu-west-1")),
            ("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/scaling", Some("cn-north-1")),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/q", Some("us-gov-west-1")),
            ("https://sqs.eu-west-1.api.aws/1/q", Some("eu-west-1")),
            ("https://vpce-0a-1b.sqs.eu-central-1.vpce.amazonaws.com/1/q", Some("eu-central-1")),
            ("https://eu-west-2.queue.amazonaws.com/1/q", Some("eu-west-2")),
            ("https://queue.amazonaws.com/1/q", Some("us-east-1")),
            ("http://127.0.0.1:4566/000000000000/sqs.eu-west-1.amazonaws.com", None),
            ("http://sqs.eu-west-1.localhost.localstack.cloud:4566/1/q", None),
            ("sqs.eu-west-1.amazonaws.com", None),
            ("", None),
        ] {
            assert_eq!(region_of(url), region, "{url}");
        }
    }
}
