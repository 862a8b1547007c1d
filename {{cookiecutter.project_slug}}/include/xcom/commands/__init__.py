"""The commands of ``python -m include.xcom``; nothing that runs in a task imports them."""
