#!/usr/bin/env python3
"""Copies a bucket into a folder: bucket.py ENDPOINT BUCKET FOLDER"""

import os
import sys

import boto3


def main():
    endpoint, bucket, folder = sys.argv[1:]
    store = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
    )
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            path = os.path.join(folder, entry["Key"])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            store.download_file(bucket, entry["Key"], path)


if __name__ == "__main__":
    main()
