# The bucket of the XComs, the one account that may use it, and nothing else.
#
#   terraform init
#   terraform apply -var project=PROJECT
#
# Every deployment of Airflow gets a bucket of its own, and one terraform workspace for each deployment
# keeps them apart; in a shared one the next bucket would have to take the place of the first:
#
#   terraform workspace new staging
#   terraform apply -var project=PROJECT -var bucket=BUCKET-OF-STAGING -var account_id=airflow-xcom-staging

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
  }
}

variable "project" {
  description = "Project that the bucket belongs to"
  type        = string
}

variable "location" {
  description = "Region of the bucket: that of the workers, since reading from another one costs money and time"
  type        = string
  default     = "us-central1"
}

variable "bucket" {
  description = "Name of the bucket, as in the Variable XCOM_BACKEND_DATA_GCS_NAME or [gcs_xcom] bucket"
  type        = string
  default     = "{{ cookiecutter.gcs_bucket }}"
}

variable "prefix" {
  description = "As in [gcs_xcom] prefix, without slashes at its ends; may be empty"
  type        = string
  default     = "xcom"
}

variable "age_days" {
  description = "Age at which payloads are deleted: above the longest time between writing an XCom and reading it"
  type        = number
  default     = 90
}

variable "service_account" {
  description = "E-mail of the account that runs the tasks; if empty, one is made"
  type        = string
  default     = ""
}

variable "account_id" {
  description = "Name of the account that is made, in front of the @; another one for each deployment of a project"
  type        = string
  default     = "airflow-xcom"
}

variable "kubernetes_accounts" {
  description = "Kubernetes accounts that act as the account that is made: PROJECT.svc.id.goog[NAMESPACE/NAME]"
  type        = set(string)
  default     = []
}

variable "kms_key" {
  description = "Cloud KMS key that encrypts the objects; if empty, Google's own"
  type        = string
  default     = ""
}

resource "google_storage_bucket" "xcom" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # Deleted payloads are gone: keeping them for some days costs what they cost before.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  # The same rule as `python -m include.xcom lifecycle set --age-days 90`.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = var.age_days
      matches_prefix = var.prefix == "" ? [] : ["${var.prefix}/"]
    }
  }

  # Another name or place would mean another bucket, and the end of this one and its payloads.
  lifecycle {
    prevent_destroy = true
  }

  dynamic "encryption" {
    for_each = var.kms_key == "" ? [] : [var.kms_key]
    content {
      default_kms_key_name = encryption.value
    }
  }
}

resource "google_service_account" "tasks" {
  count        = var.service_account == "" ? 1 : 0
  project      = var.project
  account_id   = var.account_id
  display_name = "Runs Airflow's tasks"
}

locals {
  service_account = var.service_account == "" ? google_service_account.tasks[0].email : var.service_account
}

# Create, read, list and delete objects of this bucket; change neither the bucket nor its rights.
resource "google_storage_bucket_iam_member" "tasks" {
  bucket = google_storage_bucket.xcom.name
  role   = "roles/storage.objectUser"
  member = "serviceAccount:${local.service_account}"
}

resource "google_service_account_iam_member" "kubernetes" {
  for_each           = var.service_account == "" ? var.kubernetes_accounts : toset([])
  service_account_id = google_service_account.tasks[0].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${each.value}"
}

output "bucket" {
  value = google_storage_bucket.xcom.name
}

output "service_account" {
  value = local.service_account
}
