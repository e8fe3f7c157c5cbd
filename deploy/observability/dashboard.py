#!/usr/bin/env python3
"""Prints the dashboard: deploy/observability/dashboard.py > deploy/observability/scalebridge.dashboard.json

What differs between panels is listed here once; what Grafana needs beside it is added to each. A test runs this script
and compares its output with the file.
"""

import json

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Grafana's grid has 24 columns.
WIDTH, HEIGHT, STAT_HEIGHT = 24, 8, 4

# Selectors: what a replica reports of itself, and what it reads from the store of the fleet.
REPLICA = 'job=~"$job", instance=~"$instance"'
FLEET = 'job=~"$job"'
SCALER = 'job=~"$scaler_job"'
SOURCE = 'source=~"$source"'
RULE = 'rule=~"$rule"'
DESTINATION = 'destination=~"$destination"'


def rate(metric, *labels, by):
    return f"sum by ({by}) (rate({metric}{{{', '.join(labels)}}}[$__rate_interval]))"


def increase(metric, *labels, by):
    return f"sum by ({by}) (increase({metric}{{{', '.join(labels)}}}[1h]))"


def fleet(metric, *labels, by):
    """The value of the fleet, which each replica has."""
    return f"max by (job, {by}) ({metric}{{{', '.join((FLEET, *labels))}}})"


def quantiles(metric, *labels):
    buckets = rate(f"{metric}_bucket", REPLICA, *labels, by="le, destination")
    return [(f"histogram_quantile({q}, {buckets})", f"{{{{destination}}}} p{100 * q:.0f}") for q in (0.5, 0.99)]


def stat(title, description, unit, query, thresholds):
    return ("stat", title, description, unit, [(query, "")], thresholds)


def graph(title, description, unit, *queries, stack=False):
    return ("stacked" if stack else "timeseries", title, description, unit, list(queries), None)


# Thresholds: up to the first value green, from it on red.
RED_FROM_ONE = [("green", None), ("red", 1)]
RED_AT_ZERO = [("red", None), ("green", 1)]
SECONDS_LATE = [("green", None), ("orange", 60), ("red", 300)]
NEUTRAL = [("blue", None)]

ROWS = [
    ("Now", [
        stat("Replicas", "Replicas of the bridge that Prometheus can scrape.", "short",
             f"sum(up{{{FLEET}}})", RED_AT_ZERO),
        stat("Store", "0 if a replica cannot read or write the store. Notifications get 503 then.", "short",
             f"min(scalebridge_store_up{{{REPLICA}}})", RED_AT_ZERO),
        stat("Destinations down", "Destinations that do not accept events, for at least one replica.", "short",
             f"count(min by (destination) (scalebridge_destination_up{{{REPLICA}, {DESTINATION}}}) == 0) or vector(0)",
             RED_FROM_ONE),
        stat("Oldest undelivered event", "Age of the oldest event that is neither delivered nor given up.", "s",
             f"max(scalebridge_outbox_oldest_seconds{{{FLEET}, {DESTINATION}}})", SECONDS_LATE),
        stat("Dead letters", "Events that were given up and wait for an operator.", "short",
             f"sum({fleet('scalebridge_dead_letters', DESTINATION, by='destination')})", RED_FROM_ONE),
        stat("Deferred actions", "Actions that a guard has blocked for a time.", "short",
             f"sum({fleet('scalebridge_deferred_decisions', by='verdict')})", NEUTRAL),
        stat("Owed decreases", "Increases that were emitted and not taken back.", "short",
             f"sum({fleet('scalebridge_owed_decreases', RULE, by='rule')})", NEUTRAL),
        stat("Pauses", "Active pauses of operators.", "short",
             f"max(scalebridge_paused{{{FLEET}}})", [("green", None), ("orange", 1)]),
    ]),
    ("The way of an alert", [
        graph("1. Notifications", "Webhook requests by source and HTTP status code. All but 200 need a look.", "reqps",
              (rate("scalebridge_notifications_total", REPLICA, SOURCE, by="source, code"), "{{source}} {{code}}")),
        graph("2. Alerts", "Alerts in notifications. Invalid ones cause no action.", "cps",
              (rate("scalebridge_alerts_total", REPLICA, SOURCE, by="source, status"), "{{source}} {{status}}")),
        graph("3. Decisions by verdict",
              "What the rules made of the alerts. `scalebridge decisions` has the reason of each.", "cps",
              (rate("scalebridge_decisions_total", REPLICA, RULE, by="verdict"), "{{verdict}}"), stack=True),
        graph("4. Events", "Emitted events by rule and action.", "cps",
              (rate("scalebridge_events_total", REPLICA, SOURCE, RULE, by="rule, action"), "{{rule}} {{action}}")),
        graph("5. Outbox", "Deliveries that are not settled: they wait for their first call, or are retried.", "short",
              (fleet("scalebridge_outbox_deliveries", DESTINATION, by="destination, state"),
               "{{destination}} {{state}}")),
        graph("6. Deliveries", "Attempts by result. `dead` becomes a dead letter, `withdrawn` was not sent.", "cps",
              (rate("scalebridge_deliveries_total", REPLICA, DESTINATION, by="destination, result"),
               "{{destination}} {{result}}")),
        graph("7. Outcomes of the scaler", "What the scaler's workers have made of the events.", "cps",
              (rate("scalebridge_scaler_events_total", SCALER, by="platform, outcome"), "{{platform}} {{outcome}}")),
        graph("8. Capacity", "Units of capacity that the scaler has added and taken away within an hour.", "short",
              (increase("scalebridge_scaler_capacity_change_total", SCALER, by="direction"), "{{direction}}")),
    ]),
    ("Promises", [
        graph("Reception gaps", "Times within an hour in which notifications of a source could not be accepted. "
              "Decreases wait for late_window after each.", "short",
              (increase("scalebridge_source_reception_gaps_total", REPLICA, SOURCE, by="source, cause"),
               "{{source}} {{cause}}")),
        graph("Length of reception gaps",
              "Seconds of an hour in which notifications of a source could not be accepted.", "s",
              (increase("scalebridge_source_reception_gap_seconds_total", REPLICA, SOURCE, by="source"),
               "{{source}}")),
        graph("Since the last notification", "Time since a notification of the source was accepted.", "s",
              (f"time() - ({fleet('scalebridge_last_notification_timestamp_seconds', SOURCE, by='source')} > 0)",
               "{{source}}")),
        graph("Heartbeats", "1 if the heartbeat of the source is open. 0 if not, or if none is configured. Without it, "
              "the source decreases nothing.", "short",
              (fleet("scalebridge_source_heartbeat", SOURCE, by="source"), "{{source}}")),
        graph("Open episodes", "Episodes of a rule in which an alert is firing.", "short",
              (fleet("scalebridge_open_episodes", RULE, by="rule"), "{{rule}}")),
        graph("Owed decreases",
              "Increases of a rule that were not taken back. A line that rises for days is a ratchet.", "short",
              (fleet("scalebridge_owed_decreases", RULE, by="rule"), "{{rule}}")),
        graph("Deferred actions",
              "Actions that wait, by what blocks them, and firings that may be late copies.", "short",
              (fleet("scalebridge_deferred_decisions", by="verdict"), "{{verdict}}"), stack=True),
        graph("Dead letters", "Events that were given up, by destination.", "short",
              (fleet("scalebridge_dead_letters", DESTINATION, by="destination"), "{{destination}}")),
    ]),
    ("Latency", [
        graph("From alert to delivery", "From the startsAt of an event's oldest alert to its delivery.", "s",
              *quantiles("scalebridge_alert_to_delivery_seconds", DESTINATION)),
        graph("Calls to destinations", "Duration of calls.", "s",
              *quantiles("scalebridge_delivery_duration_seconds", DESTINATION)),
        ("heatmap", "From alert to delivery, all events",
         "Each column shows how the events of that time are distributed.", "s",
         [(f"sum by (le) (increase(scalebridge_alert_to_delivery_seconds_bucket{{{REPLICA}, {DESTINATION}}}"
           "[$__rate_interval]))", "{{le}}")], None),
        graph("Age of the oldest event", "Age of the oldest event that is neither delivered nor given up.", "s",
              (fleet("scalebridge_outbox_oldest_seconds", DESTINATION, by="destination"), "{{destination}}")),
        graph("Due lag",
              "How late the target is that is due first. Above some seconds, the store or the processor is slow.", "s",
              (f"max by (job) (scalebridge_due_lag_seconds{{{FLEET}}})", "{{job}}")),
        graph("Destinations up", "0 while the circuit breaker of a replica is open.", "short",
              (f"min by (destination, instance) (scalebridge_destination_up{{{REPLICA}, {DESTINATION}}})",
               "{{destination}} {{instance}}")),
    ]),
    ("Scaler", [
        graph("Since the last poll", "Time since a worker has polled its queue successfully.", "s",
              (f"time() - max by (instance) (scalebridge_scaler_last_poll_timestamp_seconds{{{SCALER}}} > 0)",
               "{{instance}}")),
        graph("Events in progress", "Events that a worker is applying.", "short",
              (f"sum by (instance) (scalebridge_scaler_events_in_progress{{{SCALER}}})", "{{instance}}")),
        graph("Errors", "Failed reads and writes of the ledger, and failed calls to the queue.", "cps",
              (rate("scalebridge_scaler_ledger_errors_total", SCALER, by="instance"), "{{instance}} ledger"),
              (rate("scalebridge_scaler_queue_errors_total", SCALER, by="instance, call"), "{{instance}} {{call}}")),
        graph("Workers", "Workers that Prometheus can scrape, by version.", "short",
              (f"count by (version) (scalebridge_scaler_build_info{{{SCALER}}})", "{{version}}")),
    ]),
    ("Runtime of the bridge", [
        graph("Processor", "Processors that each replica uses.", "short",
              (rate("process_cpu_seconds_total", REPLICA, by="instance"), "{{instance}}")),
        graph("Memory", "Resident memory of each replica.", "bytes",
              (f"process_resident_memory_bytes{{{REPLICA}}}", "{{instance}}")),
        graph("Open files", "Open files of each replica, of the most that it may have.", "percentunit",
              (f"process_open_fds{{{REPLICA}}} / process_max_fds{{{REPLICA}}}", "{{instance}}")),
        graph("Uptime", "Time since the start of each replica.", "s",
              (f"time() - process_start_time_seconds{{{REPLICA}}}", "{{instance}}")),
        graph("Clock offset", "The wall clock of each replica minus the store's clock.", "s",
              (f"scalebridge_clock_offset_seconds{{{REPLICA}}}", "{{instance}}")),
        graph("Refused credentials", "Requests refused for their credentials.", "reqps",
              (rate("scalebridge_auth_failures_total", REPLICA, by="listener, reason"), "{{listener}} {{reason}}")),
        graph("Configuration", "1 if the last load of the configuration was successful.", "short",
              (f"scalebridge_config_last_reload_successful{{{REPLICA}}}", "{{instance}}")),
        graph("Age of the configuration", "Time since the running configuration was loaded.", "s",
              (f"time() - scalebridge_config_last_reload_success_timestamp_seconds{{{REPLICA}}}", "{{instance}}")),
        graph("Unreadable states", "Targets whose state in the store cannot be read.", "short",
              (f"scalebridge_store_unreadable_rows{{{REPLICA}}}", "{{instance}}")),
        graph("Versions", "Replicas by version. Two lines are an upgrade that has not ended.", "short",
              (f"count by (version) (scalebridge_build_info{{{REPLICA}}})", "{{version}}")),
    ]),
]

# Name, series, label, and the value of `All`. None is all values that the series have: other programs have `up` and
# `process_*` too. What no rule takes and what no source sends has an empty label, which `.*` matches.
VARIABLES = [
    ("job", "scalebridge_build_info", "job", None),
    ("instance", 'scalebridge_build_info{job=~"$job"}', "instance", None),
    ("source", 'scalebridge_alerts_total{job=~"$job"}', "source", ".*"),
    ("rule", 'scalebridge_open_episodes{job=~"$job"}', "rule", ".*"),
    ("destination", 'scalebridge_destination_up{job=~"$job"}', "destination", ".*"),
    ("scaler_job", "scalebridge_scaler_build_info", "job", None),
]


def options(kind):
    if kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "background",
                "graphMode": "area", "textMode": "value"}
    if kind == "heatmap":
        return {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges"},
                "yAxis": {"unit": "s"}}
    return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"}}


def field_config(kind, unit, thresholds):
    defaults = {"unit": unit}
    if thresholds:
        defaults["thresholds"] = {"mode": "absolute",
                                  "steps": [{"color": color, "value": value} for color, value in thresholds]}
    if kind in ("timeseries", "stacked"):
        if unit != "s":
            defaults["min"] = 0
        defaults["custom"] = {"drawStyle": "line", "fillOpacity": 30 if kind == "stacked" else 0, "showPoints": "never",
                              "stacking": {"mode": "normal" if kind == "stacked" else "none", "group": "A"}}
    return {"defaults": defaults, "overrides": []}


def target(at, query, legend, kind):
    result = {"refId": "ABCDEFGH"[at], "datasource": DATASOURCE, "expr": query, "legendFormat": legend or "__auto"}
    if kind == "heatmap":
        result["format"] = "heatmap"
    if kind == "stat":
        result["instant"] = True
    return result


def panels():
    number, y = 0, 0
    for title, contents in ROWS:
        number += 1
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
               "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y}}
        y, x = y + 1, 0
        for kind, name, description, unit, queries, thresholds in contents:
            number += 1
            width, height = (WIDTH // 8, STAT_HEIGHT) if kind == "stat" else (WIDTH // 2, HEIGHT)
            if x + width > WIDTH:
                x, y = 0, y + height
            yield {
                "id": number, "type": "timeseries" if kind == "stacked" else kind, "title": name,
                "description": description, "datasource": DATASOURCE,
                "gridPos": {"h": height, "w": width, "x": x, "y": y},
                "fieldConfig": field_config(kind, unit, thresholds), "options": options(kind),
                "targets": [target(at, query, legend, kind) for at, (query, legend) in enumerate(queries)],
            }
            x += width
        y += height


def variables():
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
           "multi": False, "includeAll": False, "refresh": 1, "regex": "", "current": {}, "options": []}
    for name, series, label, all_value in VARIABLES:
        query = f"label_values({series}, {label})"
        yield {"name": name, "type": "query", "datasource": DATASOURCE, "definition": query, "hide": 0,
               "query": {"query": query, "refId": "variable"}, "refresh": 2, "regex": "", "sort": 1,
               "multi": True, "includeAll": True, "allValue": all_value,
               "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "options": []}


print(json.dumps({
    "uid": "scalebridge",
    "title": "scalebridge",
    "description": "The way of an alert: from the notification over the decision to changed capacity.",
    "tags": ["scalebridge"],
    "schemaVersion": 39,
    "version": 1,
    "editable": True,
    "graphTooltip": 1,
    "timezone": "browser",
    "refresh": "30s",
    "time": {"from": "now-6h", "to": "now"},
    "timepicker": {},
    "fiscalYearStartMonth": 0,
    "links": [{"type": "link", "title": "Runbooks", "icon": "doc", "targetBlank": True,
               "url": "https://github.com/scalebridge/scalebridge/tree/main/docs/runbooks"}],
    "annotations": {"list": [{
        "name": "Alerts on scalebridge", "datasource": DATASOURCE, "enable": True, "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Scalebridge.*", alertstate="firing"}', "titleFormat": "{{alertname}}",
        "step": "60s",
    }]},
    "templating": {"list": list(variables())},
    "panels": list(panels()),
}, indent=2))
