# The bridge as a service job of Nomad 1.8 or later, with its store on a host volume. See README.md.

variable "image" {
  type    = string
  default = "registry.example/scalebridge:0.1.0"
}

job "scalebridge" {
  datacenters = ["dc1"]
  type        = "service"
  # Nodes are drained last: alerts wait for the bridge.
  priority = 80

  group "bridge" {
    # SQLite has one writer. More replicas need PostgreSQL, and no volume.
    count = 1

    # The volume exists on one node: on another, the bridge would start with an empty store. With a CSI volume: type = "csi",
    # access_mode = "single-node-writer", attachment_mode = "file-system".
    volume "data" {
      type      = "host"
      source    = "scalebridge"
      read_only = false
    }

    # One allocation is replaced by stopping it first. A canary would be a second one beside it.
    update {
      max_parallel      = 1
      canary            = 0
      health_check      = "checks"
      min_healthy_time  = "10s"
      healthy_deadline  = "5m"
      progress_deadline = "10m"
      auto_revert       = true
    }

    # A node that Nomad does not hear may still run its allocation, and has the only volume: no other one is started.
    disconnect {
      lost_after = "720h"
      replace    = false
      reconcile  = "keep_original"
    }

    restart {
      attempts = 10
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    network {
      port "webhook" {
        static = 9096
      }
      port "admin" {
        static = 9097
      }
    }

    service {
      name     = "scalebridge"
      port     = "webhook"
      provider = "nomad"

      # Whether notifications are accepted: what a deployment waits for. It restarts nothing: that does not repair what is away.
      check {
        name     = "ready"
        type     = "http"
        path     = "/-/ready"
        interval = "10s"
        timeout  = "3s"
      }

      check {
        name     = "healthy"
        type     = "http"
        path     = "/-/healthy"
        interval = "10s"
        timeout  = "3s"

        check_restart {
          limit = 3
          grace = "60s"
        }
      }
    }

    service {
      name     = "scalebridge-admin"
      port     = "admin"
      provider = "nomad"
    }

    task "bridge" {
      driver = "docker"
      user   = "65532:65532"
      # Above server.drain_timeout (25s), and what clients allow by default (max_kill_timeout). The default is 5s.
      kill_timeout = "30s"
      kill_signal  = "SIGTERM"

      config {
        image           = var.image
        ports           = ["webhook", "admin"]
        args            = ["serve", "--config", "/local/scalebridge.yaml"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      volume_mount {
        volume      = "data"
        destination = "/var/lib/scalebridge"
      }

      # The bridge reads changed files itself: neither a signal nor a restart is needed.
      template {
        data        = file("scalebridge.yaml")
        destination = "local/scalebridge.yaml"
        change_mode = "noop"
        perms       = "0644"
        # Templates of rules look like those of Nomad.
        left_delimiter  = "[["
        right_delimiter = "]]"
      }

      template {
        data            = file("rules.yaml")
        destination     = "local/rules.yaml"
        change_mode     = "noop"
        perms           = "0644"
        left_delimiter  = "[["
        right_delimiter = "]]"
      }

      # nomad var put nomad/jobs/scalebridge prod_eu=… oncall=… prometheus=…
      template {
        data        = "{{ with nomadVar \"nomad/jobs/scalebridge\" }}{{ .prod_eu }}{{ end }}"
        destination = "secrets/prod-eu"
        change_mode = "noop"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/scalebridge\" }}{{ .oncall }}{{ end }}"
        destination = "secrets/oncall"
        change_mode = "noop"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/scalebridge\" }}{{ .prometheus }}{{ end }}"
        destination = "secrets/prometheus"
        change_mode = "noop"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
      }

      resources {
        cpu        = 250
        memory     = 256
        memory_max = 512
      }
    }
  }
}
