"""``python -m interview_peer``: the same as the ``interview-peer`` command."""

from __future__ import annotations

from interview_peer.cli import main

if __name__ == "__main__":
    main()
