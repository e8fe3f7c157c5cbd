"""A Lambda function that applies scalebridge's events to the capacity of an Auto Scaling group.

The demo and the end-to-end test run it. It is small, but as strict as a consumer in production
has to be:

- It rejects events that it does not understand. After an exception Lambda retries the event, and
  then sends it to the function's failure destination, where operators see it.
- It does not act on an expired event.
- It is idempotent. Lambda may run it twice with one event, or stop it half-way. So it records
  the planned capacity of the event in a tag of the group before it acts, and that it is done
  afterwards. A second run reads the tag and at most sets the same capacity again.
- It must run alone: with a reserved concurrency of one. Otherwise two runs can read the same
  capacity.
- It ignores a scale-in that is older than the last handled event, since Lambda keeps no order.
- A scale-out never decreases the capacity and a scale-in never increases it, whatever the limits.
- A scale-in takes back no more than it really added for the events in `data.reverts`: the group may have been at its
  maximum. An event that it has no note of counts as one that added nothing.
"""

import datetime
import json
import re

import boto3

TYPES = {
    "io.scalebridge.scale_out.v1": "scale_out",
    "io.scalebridge.scale_in.v1": "scale_in",
}
NOTES = "scalebridge:handled"  # "<start of an event's id>=<planned or done>:<capacity>:<difference> …"
NOTES_KEPT = 7  # newest first; a tag value has at most 256 characters
SEQUENCE = "scalebridge:sequence"  # the highest of all handled events


class Rejected(Exception):
    """This function does not support the event."""


def handler(event, _context):
    change = read(event)
    if change["expires"] <= datetime.datetime.now(datetime.timezone.utc):
        return report(event, "expired")

    autoscaling = boto3.client("autoscaling", region_name=change["region"])
    group = describe(autoscaling, change["group"])
    notes, sequence = read_tags(group)
    key = event["id"][:16]
    if key not in notes:
        if change["action"] == "scale_in" and change["sequence"] < sequence:
            return report(event, "overtaken")
        sequence = max(sequence, change["sequence"])
        desired = capacity_after(change, group, notes)
        notes = {key: ("planned", desired, desired - group["DesiredCapacity"]), **notes}
        write_tags(autoscaling, group, notes, sequence)
    state, desired, difference = notes[key]
    if state == "done":
        return report(event, "already_applied")
    if key != next(iter(notes)):
        raise Rejected("an earlier run was interrupted and later events were handled: check the capacity of the group")
    if desired != group["DesiredCapacity"]:
        autoscaling.set_desired_capacity(
            AutoScalingGroupName=change["group"], DesiredCapacity=desired, HonorCooldown=False
        )
    write_tags(autoscaling, group, {**notes, key: ("done", desired, difference)}, sequence)
    return report(event, "done", group["DesiredCapacity"], desired)


def read(event):
    """Parses the requested change; raises if the event is not an adjustment of a group."""
    if event.get("specversion") != "1.0":
        raise Rejected(f"not a CloudEvent 1.0: specversion {event.get('specversion')!r}")
    action = TYPES.get(event.get("type"))
    if action is None:
        raise Rejected(f"unsupported event type: {event.get('type')!r}")
    data = event["data"]
    target = data["target"]
    if (target["platform"], target["kind"]) != ("ec2", "autoscaling-group"):
        raise Rejected(f"not an Auto Scaling group: {target['platform']}/{target['kind']}")
    adjustment = data["adjustment"]
    if adjustment["type"] != "ChangeInCapacity":
        raise Rejected(f"unsupported adjustment: {adjustment['type']!r}")
    by = adjustment["value"]
    if type(by) is not int or (by <= 0 if action == "scale_out" else by >= 0):
        raise Rejected(f"invalid value of a {action}: {by!r}")
    return {
        "action": action,
        "by": by,
        "group": target["name"],
        "region": target["region"],
        "limits": data.get("limits") or {},
        "reverts": [id[:16] for id in data.get("reverts") or []],
        "sequence": int(event["sequence"]),
        "expires": datetime.datetime.fromisoformat(event["expirytime"]),
    }


def capacity_after(change, group, notes):
    """The new capacity, within the limits of the event and of the group."""
    now, limits = group["DesiredCapacity"], change["limits"]
    lowest = max(limits.get("min_capacity") or 0, group["MinSize"])
    highest = min(limits.get("max_capacity") or group["MaxSize"], group["MaxSize"])
    if change["action"] == "scale_out":
        return max(now, min(now + change["by"], highest))
    return min(now, max(now - taken_back(change, notes), lowest))


def taken_back(change, notes):
    """What a scale-in takes back: if it names events, at most what was added for them."""
    if not change["reverts"]:
        return -change["by"]
    done = [notes[key] for key in change["reverts"] if key in notes]
    added = sum(difference for state, _, difference in done if state == "done")
    return min(-change["by"], added)


def describe(autoscaling, name):
    groups = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
    if not groups["AutoScalingGroups"]:
        raise LookupError(f"Auto Scaling group not found: {name}")
    return groups["AutoScalingGroups"][0]


def read_tags(group):
    tags = {tag["Key"]: tag["Value"] for tag in group["Tags"]}
    notes = {}
    for note in tags.get(NOTES, "").split():
        key, state, desired, difference = re.fullmatch(r"(.+)=(.+):(.+):(.+)", note).groups()
        notes[key] = (state, int(desired), int(difference))
    return notes, int(tags.get(SEQUENCE, 0))


def write_tags(autoscaling, group, notes, sequence):
    newest = list(notes.items())[:NOTES_KEPT]
    tags = {
        NOTES: " ".join(f"{key}={state}:{desired}:{difference}" for key, (state, desired, difference) in newest),
        SEQUENCE: str(sequence),
    }
    autoscaling.create_or_update_tags(
        Tags=[
            {
                "ResourceId": group["AutoScalingGroupName"],
                "ResourceType": "auto-scaling-group",
                "Key": key,
                "Value": value,
                "PropagateAtLaunch": False,
            }
            for key, value in tags.items()
        ]
    )


def report(event, result, before=None, after=None):
    line = {"event": event["id"], "result": result, "before": before, "after": after}
    print(json.dumps(line))
    return line
