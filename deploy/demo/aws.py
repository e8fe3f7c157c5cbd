#!/usr/bin/env python3
"""The AWS calls of the demo and the tests: setup and checks in the local AWS emulator.

The tests run it as a program:

    aws.py --endpoint URL create-function NAME FILE.py
    aws.py --endpoint URL create-scaler NAME PROGRAM CONFIG
    aws.py --endpoint URL create-group NAME MIN DESIRED MAX
    aws.py --endpoint URL capacity-after EVENT

It always uses the given address and invalid credentials, whatever the environment contains.
"""

import argparse
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import zipfile

import boto3

REGION = "eu-west-1"
ACCOUNT = "000000000000"
TABLE = "scalebridge-scaler"  # in config/demo/scaler.yaml
PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "scaler/package.sh"


def environment():
    """The environment without settings of AWS accounts, proxies and other bridges."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("AWS_", "SCALEBRIDGE_"))
        and not name.upper().endswith("_PROXY")
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Aws:
    """Clients of the services at one address."""

    def __init__(self, endpoint):
        os.environ.clear()
        os.environ.update(environment(), AWS_ENDPOINT_URL=endpoint)
        self.sqs = boto3.client("sqs")
        self.functions = boto3.client("lambda")
        self.autoscaling = boto3.client("autoscaling")
        self.tables = boto3.client("dynamodb")

    def create_queue(self, name):
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        return self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def create_function(self, name, file):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write(file, "function.py")
        self.functions.create_function(
            FunctionName=name,
            Runtime="python3.11",
            Handler="function.handler",
            Role=f"arn:aws:iam::{ACCOUNT}:role/{name}",
            Timeout=10,
            Code={"ZipFile": packed.getvalue()},
        )
        # Two concurrent runs would read the same capacity.
        self.functions.put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=1
        )
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)

    def create_scaler(self, name, program, config):
        """Creates the scaler's ledger and its function, which has the configuration as text."""
        self.tables.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        with tempfile.TemporaryDirectory() as directory:
            packed = pathlib.Path(directory) / "scaler.zip"
            command = [PACKAGE, program, packed]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            code = packed.read_bytes()
        # The emulator gives its address to functions in Python only.
        settings = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
        self.functions.create_function(
            FunctionName=name,
            Runtime="provided.al2023",
            Handler="bootstrap",
            Role=f"arn:aws:iam::{ACCOUNT}:role/{name}",
            Timeout=60,
            Code={"ZipFile": code},
            Environment={"Variables": settings | {"SCALEBRIDGE_SCALER_CONFIG": config.read_text()}},
        )
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)

    def create_group(self, name, lowest, desired, highest):
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=lowest,
            DesiredCapacity=desired,
            MaxSize=highest,
            AvailabilityZones=[f"{REGION}a", f"{REGION}b"],
        )

    def group(self, name):
        answer = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        return answer["AutoScalingGroups"][0]

    def capacity_after(self, event):
        """What the ledger says that the scaler has set for the event, or None before that."""
        answer = self.tables.get_item(TableName=TABLE, Key={"pk": {"S": f"event#{event}"}})
        return json.loads(answer["Item"]["document"]["S"])["to"] if "Item" in answer else None

    def receive(self, queue_url, seconds=1):
        """Receives and deletes the next message of the queue; None if it is empty."""
        answer = self.sqs.receive_message(
            QueueUrl=queue_url,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
            WaitTimeSeconds=seconds,
        )
        for message in answer.get("Messages", []):
            self.sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
            return message
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("create-function")
    verb.add_argument("name")
    verb.add_argument("file", type=pathlib.Path)
    verb = verbs.add_parser("create-scaler")
    verb.add_argument("name")
    verb.add_argument("program", type=pathlib.Path)
    verb.add_argument("config", type=pathlib.Path)
    verb = verbs.add_parser("create-group")
    verb.add_argument("name")
    for number in ["lowest", "desired", "highest"]:
        verb.add_argument(number, type=int)
    verb = verbs.add_parser("capacity-after")
    verb.add_argument("event")
    args = parser.parse_args()

    aws = Aws(args.endpoint)
    if args.verb == "create-function":
        aws.create_function(args.name, args.file)
    elif args.verb == "create-scaler":
        aws.create_scaler(args.name, args.program, args.config)
    elif args.verb == "create-group":
        aws.create_group(args.name, args.lowest, args.desired, args.highest)
    else:
        deadline = time.monotonic() + 20
        while (capacity := aws.capacity_after(args.event)) is None:
            if time.monotonic() > deadline:
                sys.exit(f"{args.event} was not applied within 20 s")
            time.sleep(0.05)
        print(capacity)


if __name__ == "__main__":
    main()
