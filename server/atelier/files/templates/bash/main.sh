#!/usr/bin/env bash
set -euo pipefail

greet() {
  echo "Hello, $1!"
}

greet "world"
