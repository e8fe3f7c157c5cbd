"""Registers what is in this directory, as the commands of the README do: register.py --endpoint URL

boto3 refuses fields that the services do not have, and values of another type, before it sends anything. The test runs this
against an emulator. Without --endpoint it would act on the account of the environment, so it is required.
"""

import argparse
import json
import pathlib

import boto3

DIRECTORY = pathlib.Path(__file__).parent
TASKS = ["bridge-fargate", "bridge-ec2", "scaler-fargate"]


def read(name):
    return json.loads((DIRECTORY / name).read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True)
    endpoint = parser.parse_args().endpoint

    def client(service):
        return boto3.client(service, endpoint_url=endpoint, region_name="eu-west-1")

    # What the services refer to has other ids here.
    ec2, balancers, ecs = client("ec2"), client("elbv2"), client("ecs")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"] for number in range(2)
    ]
    group = ec2.create_security_group(VpcId=vpc, GroupName="scalebridge", Description="-")["GroupId"]
    target_group = balancers.create_target_group(**{**read("target-group.json"), "VpcId": vpc})["TargetGroups"][0]
    ecs.create_cluster(clusterName="platform")

    registered = {}
    for name in TASKS:
        task = read(f"{name}.task.json")
        answer = ecs.register_task_definition(**task)["taskDefinition"]
        service = read(f"{name}.service.json")
        network = service["networkConfiguration"]["awsvpcConfiguration"]
        network.update(subnets=subnets, securityGroups=[group])
        for balancer in service.get("loadBalancers", []):
            balancer["targetGroupArn"] = target_group["TargetGroupArn"]
        created = ecs.create_service(**service)["service"]
        registered[name] = {
            "family": answer["family"],
            "containers": [container["name"] for container in answer["containerDefinitions"]],
            "desired": created["desiredCount"],
        }
    print(json.dumps(registered))


if __name__ == "__main__":
    main()
