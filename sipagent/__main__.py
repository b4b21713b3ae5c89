from sipagent.cli import main

main()
