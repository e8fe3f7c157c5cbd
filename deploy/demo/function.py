"""A Lambda function that changes an Auto Scaling group's capacity by scalebridge's events.

The demo and the end-to-end test run it; it is small, but careful, as what acts on production
has to be:

- It refuses what it does not understand. An exception makes Lambda try the event again, and
  then send it to the function's failure destination, where somebody sees it.
- It does not act on an event that has expired.
- It acts once. Lambda may run it twice with one event, or let it die half-way. So it first
  notes on the group, in a tag, which capacity this event leads to, and afterwards that it is
  done; a second run finds the note, and at most sets that same number, never adds to it.
- It runs alone: give it a reserved concurrency of one, or two runs read the same capacity.
- It takes nothing away by an event that a newer one has overtaken; Lambda keeps no order.
- A scale-out never lowers the capacity and a scale-in never raises it, whatever the limits say.
"""

import datetime
import json
import re

import boto3

TYPES = {
    "io.scalebridge.scale_out.v1": "scale_out",
    "io.scalebridge.scale_in.v1": "scale_in",
}
NOTES = "scalebridge:handled"  # "<start of an event's id>=<planned or done>:<capacity> …"
NOTES_KEPT = 7  # the newest first; a tag holds 256 characters
SEQUENCE = "scalebridge:sequence"  # the highest of all events handled


class Refused(Exception):
    """The event is not one that this function acts on."""


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
        notes = {key: ("planned", capacity_after(change, group)), **notes}
        write_tags(autoscaling, group, notes, sequence)
    state, desired = notes[key]
    if state == "done":
        return report(event, "handled before")
    if key != next(iter(notes)):
        raise Refused("an earlier run died, and other events were handled since: look at the group")
    if desired != group["DesiredCapacity"]:
        autoscaling.set_desired_capacity(
            AutoScalingGroupName=change["group"], DesiredCapacity=desired, HonorCooldown=False
        )
    write_tags(autoscaling, group, {**notes, key: ("done", desired)}, sequence)
    return report(event, "done", group["DesiredCapacity"], desired)


def read(event):
    """What the event asks for; raises for anything else than an adjustment of a group."""
    if event.get("specversion") != "1.0":
        raise Refused(f"not a CloudEvent 1.0: specversion {event.get('specversion')!r}")
    action = TYPES.get(event.get("type"))
    if action is None:
        raise Refused(f"no type that this function acts on: {event.get('type')!r}")
    data = event["data"]
    target = data["target"]
    if (target["platform"], target["kind"]) != ("ec2", "autoscaling-group"):
        raise Refused(f"not an Auto Scaling group: {target['platform']}/{target['kind']}")
    adjustment = data["adjustment"]
    if adjustment["type"] != "ChangeInCapacity":
        raise Refused(f"an adjustment that this function does not know: {adjustment['type']!r}")
    by = adjustment["value"]
    if type(by) is not int or (by <= 0 if action == "scale_out" else by >= 0):
        raise Refused(f"{action} by {by!r}")
    return {
        "action": action,
        "by": by,
        "group": target["name"],
        "region": target["region"],
        "limits": data.get("limits") or {},
        "sequence": int(event["sequence"]),
        "expires": datetime.datetime.fromisoformat(event["expirytime"]),
    }


def capacity_after(change, group):
    """The capacity that the change leads to, inside the event's limits and the group's own."""
    now, limits = group["DesiredCapacity"], change["limits"]
    lowest = max(limits.get("min_capacity") or 0, group["MinSize"])
    highest = min(limits.get("max_capacity") or group["MaxSize"], group["MaxSize"])
    if change["action"] == "scale_out":
        return max(now, min(now + change["by"], highest))
    return min(now, max(now + change["by"], lowest))


def describe(autoscaling, name):
    groups = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
    if not groups["AutoScalingGroups"]:
        raise LookupError(f"no Auto Scaling group {name}")
    return groups["AutoScalingGroups"][0]


def read_tags(group):
    tags = {tag["Key"]: tag["Value"] for tag in group["Tags"]}
    notes = {}
    for note in tags.get(NOTES, "").split():
        key, state, desired = re.fullmatch(r"(.+)=(.+):(.+)", note).groups()
        notes[key] = (state, int(desired))
    return notes, int(tags.get(SEQUENCE, 0))


def write_tags(autoscaling, group, notes, sequence):
    newest = list(notes.items())[:NOTES_KEPT]
    tags = {
        NOTES: " ".join(f"{key}={state}:{desired}" for key, (state, desired) in newest),
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
