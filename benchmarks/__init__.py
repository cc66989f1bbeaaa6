"""What the losses cost beside plain forms, and FAKD's step beside CWD's. See docs/performance.md."""
