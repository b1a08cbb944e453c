export CARGO_TARGET_DIR=/root/wt/target-lead
