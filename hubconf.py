"For torch.hub: torch.hub.load(REPOSITORY, 'ticket', NAME)"

dependencies = [
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "safetensors",
    "constriction",
    "fastcore",
]


def ticket(name: str):
    "A network of the zoo (`mplt ticket list` shows the names), or of a ticket's file, ready to run"
    from pathlib import Path

    from mplt import ticket

    return ticket.load(name) if Path(name).is_file() else ticket.zoo(name)
