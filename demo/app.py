"""Try the networks on a web page of this machine: python demo/app.py"""

import argparse
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the repository

from utils import cli


def main() -> None:
    """Serve the page until Ctrl-C."""
    args = parse_arguments()
    port = free_port(args.host, args.port)
    try:  # imported here, as they are slow: --help and wrong options are answered without them
        from demo.page.layout import build_page, launch
        from demo.page.service import Service, list_weights
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ValueError("Gradio is not installed: pip install -r requirements-demo.txt") from None
    weights = list_weights(args.ckpt)
    temporary = tempfile.TemporaryDirectory(prefix="icnet-", ignore_cleanup_errors=True)  # Windows keeps open files
    with temporary as folder, cli.catching_signals() as stopping:
        # Uploads go to a folder that is deleted at the end; nothing is reported or recorded.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
        os.environ["no_proxy"] = "*"  # Gradio requests its own page to check that it runs; a proxy cannot reach it
        page = build_page(Service(weights, Path(folder)))
        launch(page, args.host, port)
        print(f"open http://{args.host}:{port} in a browser; Ctrl-C ends it")
        while not stopping():
            time.sleep(0.2)
        page.close(verbose=False)


def free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0; raise an OSError if no server can listen there (Gradio's says little)."""
    try:
        with socket.create_server((host, port)) as server:
            return server.getsockname()[1]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from None


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--ckpt",
        type=os.path.expanduser,
        metavar="FILE",
        help="weights to select at first (default: the best in ckpt, or else the included ones)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, for this machine only)"
    )
    parser.add_argument(
        "--port", type=int, default=7860, help="port to listen on, 0 for a free one (default: %(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
