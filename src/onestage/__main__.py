"""`python -m onestage`: the same commands as `onestage` (what `torchrun -m onestage` runs)."""

from onestage.cli import main

if __name__ == "__main__":
    main()
