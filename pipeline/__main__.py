"""`python -m pipeline`. Loads as little as it can before the fork server is on its way."""


def _begin_early(words: list[str]) -> None:
    """The fork server of a run loads its modules while we load ours: a sixth of what a small run takes."""
    import os
    from contextlib import suppress

    from pipeline.model.errors import PipelineError
    from pipeline.pool.forkserver import BACKING_UP, start_fork_server

    if words[:1] in (["run"], ["watch"]) and "--help" not in words and hasattr(os, "fork"):
        with suppress(PipelineError):  # the run itself tries it again, and tells
            start_fork_server(*BACKING_UP)


if __name__ == "__main__":
    import sys

    try:
        _begin_early(sys.argv[1:])
        from pipeline.ui.cli import main
    except KeyboardInterrupt:
        raise SystemExit(130) from None

    main()
