//! The calls of EventBridge, SNS and Step Functions as those of a queue, and its answers as theirs.

use serde_json::{Map, Value, json};

use super::Kind;
use super::wire::Connection;

/// The body of a call of `SendMessageBatch` that sends the same events; `None` if it is another operation.
pub(super) fn as_sent_messages(kind: Kind, operation: &str, body: &[u8]) -> Option<Vec<u8>> {
    let json = || serde_json::from_slice::<Value>(body).expect("JSON");
    let call = match (kind, operation) {
        (Kind::Standard | Kind::Fifo, "AmazonSQS.SendMessageBatch") => return Some(body.to_vec()),
        (Kind::Bus, "AWSEvents.PutEvents") => of_events(&json()),
        (Kind::Topic | Kind::FifoTopic, "") => of_messages(&parameters(body))?,
        (Kind::StateMachine, "AWSStepFunctions.StartExecution") => of_execution(&json()),
        _ => return None,
    };
    Some(call.to_string().into_bytes())
}

/// The id of an entry is its index. Source and type of the event are where rules of the bus match them.
fn of_events(call: &Value) -> Value {
    let entries = call["Entries"].as_array().expect("entries").iter().enumerate().map(|(at, entry)| {
        let detail = entry["Detail"].as_str().expect("text");
        let event: Value = serde_json::from_str(detail).expect("an event");
        assert_eq!((&entry["Source"], &entry["DetailType"]), (&event["source"], &event["type"]));
        let time: jiff::Timestamp = event["time"].as_str().expect("text").parse().expect("a time");
        let millis = time.as_millisecond();
        let seconds = format!("{}.{:03}", millis / 1000, millis % 1000);
        assert_eq!(format!("{:.3}", entry["Time"].as_f64().expect("a time")), seconds);
        json!({ "Id": at.to_string(), "MessageBody": detail })
    });
    json!({ "QueueUrl": "bus", "Entries": entries.collect::<Vec<_>>() })
}

/// The decoded parameters of a call in the query protocol.
fn parameters(body: &[u8]) -> Map<String, Value> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8().expect("UTF-8").into_owned()
    };
    let body = std::str::from_utf8(body).expect("ASCII");
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value).into())).collect()
}

fn of_messages(parameters: &Map<String, Value>) -> Option<Value> {
    if parameters.get("Action")? != "PublishBatch" {
        return None;
    }
    let topic = parameters.get("TopicArn")?.as_str()?;
    let entries = (1..).map_while(|at| {
        let prefix = format!("PublishBatchRequestEntries.member.{at}");
        let value = |name: &str| parameters.get(&format!("{prefix}.{name}")).cloned();
        let attributes = (1..).map_while(|at| {
            let value = |name: &str| value(&format!("MessageAttributes.entry.{at}.{name}"));
            let (kind, text) = (value("Value.DataType")?, value("Value.StringValue")?);
            Some((value("Name")?.as_str()?.to_owned(), json!({ "DataType": kind, "StringValue": text })))
        });
        let attributes: Map<String, Value> = attributes.collect();
        let mut entry = json!({
            "Id": value("Id")?, "MessageBody": value("Message")?, "MessageAttributes": attributes,
        });
        for name in ["MessageGroupId", "MessageDeduplicationId"] {
            if let Some(value) = value(name) {
                entry[name] = value;
            }
        }
        Some(entry)
    });
    Some(json!({ "QueueUrl": topic, "Entries": entries.collect::<Vec<_>>() }))
}

/// The name is the deduplication id.
fn of_execution(call: &Value) -> Value {
    let entry = json!({
        "Id": "0", "MessageBody": call["input"], "MessageGroupId": "-", "MessageDeduplicationId": call["name"],
    });
    json!({ "QueueUrl": call["stateMachineArn"], "Entries": [entry] })
}

/// What the service answers instead of this answer to a call with `count` entries: a body, or an error.
pub(super) fn answer(kind: Kind, count: usize, answer: &Value) -> Result<String, String> {
    let entries = |key: &str| answer[key].as_array().expect("a list").clone();
    let (successful, failed) = (entries("Successful"), entries("Failed"));
    match kind {
        Kind::Standard | Kind::Fifo => Ok(answer.to_string()),
        Kind::Bus => {
            let entry = |at: usize| {
                let id = at.to_string();
                let is_it = |entry: &&Value| entry["Id"] == id.as_str();
                match (successful.iter().find(is_it), failed.iter().find(is_it)) {
                    (Some(_), _) => json!({ "EventId": "e" }),
                    (_, Some(entry)) => json!({ "ErrorCode": entry["Code"], "ErrorMessage": "later" }),
                    _ => json!({}),
                }
            };
            let all: Vec<Value> = (0..count).map(entry).collect();
            Ok(json!({ "FailedEntryCount": failed.len(), "Entries": all }).to_string())
        }
        Kind::Topic | Kind::FifoTopic => {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let member = |names: &[&str], entry: &Value| {
                let fields = names.iter().map(|name| format!("<{name}>{}</{name}>", text(&entry[*name])));
                format!("<member>{}</member>", fields.collect::<String>())
            };
            let successful = successful.iter().map(|entry| member(&["Id", "MessageId"], entry));
            let failed = failed.iter().map(|entry| member(&["Id", "Code", "SenderFault"], entry));
            Ok(format!(
                "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult>\
                 <Successful>{}</Successful><Failed>{}</Failed></PublishBatchResult></PublishBatchResponse>",
                successful.collect::<String>(),
                failed.collect::<String>()
            ))
        }
        Kind::StateMachine => match failed.first() {
            Some(entry) => Err(entry["Code"].as_str().expect("a code").to_owned()),
            None if successful.is_empty() => Ok("{}".to_owned()),
            None => Ok(json!({ "executionArn": "arn", "startDate": 1.0 }).to_string()),
        },
    }
}

/// Sends an error with a code in the format of the service.
pub(super) async fn send_error(
    kind: Kind,
    connection: &mut Connection,
    status: u16,
    code: &str,
) -> std::io::Result<()> {
    if !matches!(kind, Kind::Topic | Kind::FifoTopic) {
        return connection.answer_error(status, code).await;
    }
    let xml = format!(
        "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>refused</Message></Error></ErrorResponse>"
    );
    connection.answer(status, None, &xml).await
}
