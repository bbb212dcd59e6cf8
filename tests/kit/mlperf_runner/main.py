"""A runner for tests that behaves at its interfaces as the public one of MLPerf Tiny does.

It was written from how that one behaves: the options, the search for a port by USB numbers, the
commands and their replies, a time-out of five seconds a line, and what is printed. It computes what
it prints by definition, and has no part of the public one.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import sys
import time
from pathlib import Path

import joulescope  # type: ignore[import-not-found,unused-ignore]
import serial
import usb.core  # type: ignore[import-not-found,unused-ignore]
from serial.tools import list_ports

LINE_S = 5.0
PIECE = 31


def find_port(devices: str) -> str:
    (vendor, product), *_ = re.findall(r"0x([0-9a-fA-F]+): 0x([0-9a-fA-F]+)", devices)
    for port in list_ports.comports(True):
        if port.vid and (port.vid, port.pid) == (int(vendor, 16), int(product, 16)):
            assert list(usb.core.find(find_all=True)) == []
            assert list(joulescope.scan()) == []
            return str(port.device)
    raise RuntimeError("No interface or DUT detected. One must be present to run test")


class Dut:
    def __init__(self, port: serial.Serial) -> None:
        self.port = port

    def ask(self, command: str) -> list[str]:
        self.port.write(f"{command}%".encode())
        lines: list[str] = []
        while not lines or "m-ready" not in lines[-1]:
            line = self.port.readline()
            if not line.endswith(b"\n"):
                raise RuntimeError(f"No response to command {command}")
            lines.append(line.decode().strip())
        return lines

    def load(self, data: bytes) -> None:
        self.ask(f"db load {len(data)}")
        for start in range(0, len(data), PIECE):
            self.ask(f"db {data[start : start + PIECE].hex()}")


def windows(row: dict[str, str], data: bytes, mode: str) -> list[bytes]:
    if not row["stride"]:
        return [data]
    size, stride = int(row["bytes_to_send"]), int(row["stride"])
    found = [data[at : at + size] for at in range(0, len(data) - size + 1, stride)]
    return found[:1] if mode == "p" else found


def area(positive: list[float], others: list[float]) -> float:
    wins = [(a > b) + (a == b) / 2 for a in positive for b in others]
    return sum(wins) / len(wins)


def main() -> None:
    parser = argparse.ArgumentParser()
    for short, name in (("-d", "device_list"), ("-t", "test_script"), ("-s", "dataset_path")):
        parser.add_argument(short, f"--{name}", required=True)
    parser.add_argument("-m", "--mode", choices=["p", "a"], default="a")
    args = parser.parse_args()
    path = find_port(Path(args.device_list).read_text())
    # The public runner opens the port, closes it and opens it again.
    with serial.Serial(path, 115200, timeout=LINE_S) as port:
        Dut(port).ask("name")
    with serial.Serial(path, 115200, timeout=LINE_S) as port:
        dut = Dut(port)
        (name,) = re.findall(r"m-name-dut-\[(.+)\]", "\n".join(dut.ask("name")))
        print(f"Device name retrieved: {name}")
        (model,) = re.findall(r"m-model-\[(.+)\]", "\n".join(dut.ask("profile")))
        script = Path(args.test_script).read_text().partition(f"{model}:")[2]
        loops, count, warm_up = re.findall(r"loop ?(\d*):.*?infer (\d+) (\d+)", script, re.S)[0]
        folder = Path(args.dataset_path) / model
        fields = ["file", "classes", "class", "bytes_to_send", "stride"]
        with open(folder / "y_labels.csv", newline="") as file:
            rows = list(csv.DictReader(file, fieldnames=fields))
        rows = rows[: int(loops)] if loops else rows
        started, speeds, means, labels = time.monotonic(), [], [], []
        for row in rows:
            scores = []
            for data in windows(row, (folder / row["file"]).read_bytes(), args.mode):
                dut.load(data)
                text = "\n".join(dut.ask(f"infer {count} {warm_up}"))
                (results,) = re.findall(r"^m-results-\[(.+)\]$", text, re.M)
                values = [float(score) for score in results.split(",")]
                scores.append([v / sum(values) for v in values] if len(values) > 1 else values)
                first, last = (int(lap) for lap in re.findall(r"^m-lap-us-(\d+)$", text, re.M))
                speeds.append(int(count) * 1e6 / max(1, last - first))
                print(f"0101.000000 ulp-mlperf:   Throughput   : {speeds[-1]:>10.3f} inf./sec.")
            means.append([statistics.mean(column) for column in zip(*scores, strict=True)])
            labels.append(int(row["class"]))
    if args.mode == "p":
        if time.monotonic() - started < 10.0:
            print("0101.000000 ulp-mlperf: ERROR 2 - loop exited before 10 seconds elapsed.")
        else:
            print(
                f"0101.000000 ulp-mlperf: Median throughput is {statistics.median(speeds):>10.3f}"
                " inf./sec."
            )
        return
    right = sum(mean.index(max(mean)) == label for mean, label in zip(means, labels, strict=True))
    areas = []
    for label in sorted(set(labels)) if len(means[0]) > 1 else [1]:
        column = label if len(means[0]) > 1 else 0
        sides: tuple[list[float], list[float]] = ([], [])
        for mean, own in zip(means, labels, strict=True):
            sides[own != label].append(mean[column])
        areas.append(area(*sides))
    print(f"0101.000000 ulp-mlperf: Top 1% = {100 * right / len(rows):2.1f}")
    print(f"0101.000000 ulp-mlperf: AUC = {statistics.mean(areas):.3f}")


if __name__ == "__main__":
    main()
    sys.exit(0)
