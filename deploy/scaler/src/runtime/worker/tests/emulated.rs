use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName as Name;

use super::*;
use crate::test_support::emulators::ministack;

/// Creates a queue with events of three targets, whose second ones are tried again twice.
async fn filled(client: &Client, name: &str, script: &Script) -> String {
    let is_fifo = name.ends_with(".fifo");
    let mut queue = client.create_queue().queue_name(name);
    if is_fifo {
        queue = queue.attributes(Name::FifoQueue, "true");
    }
    let url = queue.send().await.unwrap().queue_url.unwrap();
    for number in 1..=4 {
        for group in ["a", "b", "c"] {
            let id = format!("{group}{number}");
            let mut message = client.send_message().queue_url(&url).message_body(event(&id, group));
            message = message.message_group_id(group);
            if is_fifo {
                message = message.message_deduplication_id(&id);
            }
            message.send().await.unwrap();
            if number == 2 {
                script.answer(&id, [Outcome::Retry, Outcome::Retry]);
            }
        }
    }
    url
}

async fn left(client: &Client, url: &str) -> Vec<String> {
    let (visible, hidden) = (Name::ApproximateNumberOfMessages, Name::ApproximateNumberOfMessagesNotVisible);
    let call = client.get_queue_attributes().queue_url(url);
    let call = call.attribute_names(visible.clone()).attribute_names(hidden.clone());
    let attributes = call.send().await.unwrap().attributes.unwrap();
    [visible, hidden].iter().map(|name| attributes[name].clone()).collect()
}

#[tokio::test]
async fn a_fifo_queue_is_worked_off_in_the_order_of_each_group() {
    let emulator = ministack().await;
    let config = crate::test_support::config(&emulator.url()).await;
    let (client, script) = (Client::new(&config), Arc::<Script>::default());
    let url = filled(&client, "scaling.fifo", &script).await;
    let running =
        Running::start(Settings { poll_wait: Duration::from_secs(1), ..settings(&url) }, config, &script)
            .await;
    running.until_ready().await;
    while left(&client, &url).await != ["0", "0"] {
        pause().await;
    }
    running.stop().await;
    for group in ["a", "b", "c"] {
        let of_group = script.begun().into_iter().filter(|id| id.starts_with(group));
        let expected = [1, 2, 2, 2, 3, 4].map(|number| format!("{group}{number}"));
        assert_eq!(of_group.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn a_standard_queue_is_worked_off() {
    let emulator = ministack().await;
    let config = crate::test_support::config(&emulator.url()).await;
    let (client, script) = (Client::new(&config), Arc::<Script>::default());
    let url = filled(&client, "scaling", &script).await;
    let running =
        Running::start(Settings { poll_wait: Duration::from_secs(1), ..settings(&url) }, config, &script)
            .await;
    while left(&client, &url).await != ["0", "0"] {
        pause().await;
    }
    running.stop().await;
    let ended = |id: &str| script.begun().iter().filter(|begun| *begun == id).count();
    assert_eq!(["a1", "a2", "b2", "c3"].map(ended), [1, 3, 3, 1]);
    assert_eq!(script.begun().len(), 18);
}
