"""`python -m pipeline`. Kept free of imports: child processes load this module too."""

if __name__ == "__main__":
    from pipeline.ui.cli import main

    main()
