# The worker of the scaler as a service job of Nomad 1.8 or later. Its ledger is DynamoDB, so that any number may run.

variable "image" {
  type    = string
  default = "registry.example/scalebridge-scaler:0.1.0"
}

job "scalebridge-scaler" {
  datacenters = ["dc1"]
  type        = "service"
  priority    = 80

  group "worker" {
    count = 2

    update {
      max_parallel      = 1
      health_check      = "checks"
      min_healthy_time  = "10s"
      healthy_deadline  = "5m"
      progress_deadline = "10m"
      auto_revert       = true
    }

    restart {
      attempts = 10
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    network {
      port "metrics" {
        to = 9098
      }
    }

    service {
      name     = "scalebridge-scaler"
      port     = "metrics"
      provider = "nomad"

      # Whether the queue is polled and the ledger answers. It restarts nothing.
      check {
        name     = "ready"
        type     = "http"
        path     = "/-/ready"
        interval = "10s"
        timeout  = "6s"
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

    task "worker" {
      driver = "docker"
      user   = "65532:65532"
      # Above --drain-timeout, and what clients allow by default (max_kill_timeout). What is not finished comes again.
      kill_timeout = "30s"
      kill_signal  = "SIGTERM"

      config {
        image           = var.image
        ports           = ["metrics"]
        args            = ["worker", "--config", "/local/scaler.yaml", "--listen", "0.0.0.0:9098", "--drain-timeout", "25"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      # The worker reads its configuration once.
      template {
        data            = file("scaler.yaml")
        destination     = "local/scaler.yaml"
        change_mode     = "restart"
        perms           = "0644"
        left_delimiter  = "[["
        right_delimiter = "]]"
      }

      resources {
        cpu        = 250
        memory     = 128
        memory_max = 256
      }
    }
  }
}
