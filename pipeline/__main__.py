"""`python -m pipeline`. Kept free of imports: child processes load this module too."""

if __name__ == "__main__":
    try:
        from pipeline.ui.cli import main
    except KeyboardInterrupt:
        raise SystemExit(130) from None

    main()
